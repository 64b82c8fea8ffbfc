// The jobs of the room, each with a form.
export function startJobs(section, context) {}
