// The tasks of the room.
export function startTasks(section, context) {}
