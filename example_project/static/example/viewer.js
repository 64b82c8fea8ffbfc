// The demo's piece above the jobs: the room's latest trajectory, and its latest histogram.

import { drawHistogram } from "./histogram.js";
import { createScene } from "./scene.js";
import { text } from "./texts.js";

const FILE = "trajectory.xyz";
const TRAJECTORIES = ["@global:modifiers:Simulate", "@global:modifiers:Rotate"];
const HISTOGRAM = "@global:analysis:DistanceHistogram";
const FRAMES_PER_SECOND = 12;

const byId = (id) => document.getElementById(id);
const room = JSON.parse(byId("joblib-room-data").textContent);
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;

async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
  return answer;
}

/** The completed tasks of a job in this room, the newest one alone. */
async function newest(job, include = "") {
  const path = `${room.roomPath}/jobs/${encodeURIComponent(job)}/tasks?status=completed&limit=1${include}`;
  const answer = await fetch(path);
  // 404: the job is not registered yet.
  return answer.ok ? answer.json() : [];
}

let scene = null;
let shown = null;
let playing = null;

function showFrame(number) {
  byId("frame").value = number;
  byId("frame-number").textContent = text("position", { number: number + 1, count: scene.count });
  scene.frame(number);
}

function play(on) {
  clearInterval(playing);
  playing = on
    ? setInterval(() => showFrame((Number(byId("frame").value) + 1) % scene.count), 1000 / FRAMES_PER_SECOND)
    : null;
  byId("play").setAttribute("aria-pressed", String(on));
  byId("play").textContent = text(on ? "pause" : "play");
}

async function showTrajectory(task) {
  if (shown && task.created_at <= shown.created_at) return;
  shown = task;
  const answer = await get(`${room.apiPath}tasks/${task.id}/files/${FILE}`);
  const frames = await answer.text();
  // A later task came in the meantime.
  if (shown !== task) return;
  scene ??= createScene(byId("scene"));
  scene.load(frames);
  byId("frame").max = scene.count - 1;
  byId("scene-controls").hidden = false;
  const link = document.createElement("a");
  link.href = `?task=${task.id}`;
  link.textContent = text("frames", { job: task.job_name, count: scene.count });
  byId("scene-caption").replaceChildren(link);
  follow(link);
  showFrame(Math.min(Number(byId("frame").value), scene.count - 1));
  byId("spin").disabled = !scene.spin;
  turn(byId("spin").checked);
  play(playing !== null || (!still && scene.count > 1 && byId("play").dataset.touched !== "1"));
}

function turn(on) {
  scene?.spin?.(on);
}

async function start() {
  byId("spin").checked = !still;
  const found = (await Promise.all(TRAJECTORIES.map((job) => newest(job)))).flat();
  found.sort((a, b) => (a.created_at < b.created_at ? 1 : -1));
  if (found.length) await showTrajectory(found[0]);
  else byId("scene-caption").textContent = text("none");
  const [counted] = await newest(HISTOGRAM, "&include=result");
  if (counted) drawHistogram(counted);
}

/** Changes the address without loading the page anew; its modules read it after `popstate`. */
function follow(link) {
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    history.pushState(null, "", link.href);
    dispatchEvent(new PopStateEvent("popstate"));
    byId(link.search.startsWith("?task") ? "joblib-tasks" : "joblib-jobs").scrollIntoView();
  });
}

async function showEnd(task) {
  if (task.status !== "completed") return;
  if (TRAJECTORIES.includes(task.job_name)) await showTrajectory(task);
  if (task.job_name === HISTOGRAM) {
    drawHistogram(await (await get(`${room.apiPath}tasks/${task.id}`)).json());
  }
}

function fail(error) {
  byId("scene-caption").textContent = text("failed", { reason: error.message });
}

byId("frame").addEventListener("input", (event) => {
  play(false);
  showFrame(Number(event.target.value));
});
byId("play").addEventListener("click", () => {
  byId("play").dataset.touched = "1";
  play(playing === null);
});
byId("spin").addEventListener("change", (event) => turn(event.target.checked));
// The room's events, which the page's own modules pass on.
document.addEventListener("joblib:task", (event) => showEnd(event.detail.task).catch(fail));
document.addEventListener("joblib:reset", () => start().catch(fail));
start().catch(fail);

document.querySelectorAll("#viewer .hint a").forEach(follow);

byId("copy-command")?.addEventListener("click", async (event) => {
  const answer = await fetch(event.target.dataset.url, {
    method: "POST",
    headers: { [room.csrf.header]: room.csrf.token },
  });
  if (!answer.ok) {
    byId("copied").textContent = text("refused", { reason: answer.status });
    return;
  }
  const { command } = await answer.json();
  try {
    await navigator.clipboard.writeText(command);
    byId("copied").textContent = text("copied");
  } catch {
    // Not allowed, or no HTTPS: shown, so that it can be copied by hand.
    byId("command").hidden = false;
    byId("command").value = command;
    byId("command").select();
    byId("copied").textContent = text("byHand");
  }
});
