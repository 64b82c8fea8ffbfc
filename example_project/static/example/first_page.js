// Reloads what goes on, every 5 seconds while somebody looks.

const SECONDS = 5;
const activity = document.getElementById("activity");

async function reload() {
  if (document.hidden || activity.contains(document.activeElement)) return;
  try {
    const answer = await fetch(location.href);
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("activity");
    // Without it the session has ended.
    if (fresh) activity.replaceChildren(...fresh.children);
    else location.reload();
  } catch {
    // The server is away; the next turn tries again.
  }
}

if (activity) setInterval(reload, SECONDS * 1000);
