// The room page. `context` is what its parts share.
import { startJobs } from "./jobs.js";
import { startTasks } from "./tasks.js";

const context = {};

startJobs(document.getElementById("joblib-jobs"), context);
startTasks(document.getElementById("joblib-tasks"), context);
