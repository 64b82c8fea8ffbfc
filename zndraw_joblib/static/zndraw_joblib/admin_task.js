// Refreshes the page of a task in the admin until the task ends. Does nothing on other pages.

const PERIOD = 2000;
const LONGEST_PERIOD = 30000;
// Characters of the log that stay in the page.
const MAX_SHOWN = 200000;

const log = document.querySelector("pre.joblib-growing");
if (log) {
  new Refresher(log).start();
}

function Refresher(log) {
  const note = document.querySelector(".joblib-live");
  const texts = JSON.parse(log.dataset.texts);
  let offset = log.dataset.offset;
  let period = PERIOD;
  let timer = null;
  let stopped = false;

  this.start = () => {
    say("live");
    log.scrollTop = log.scrollHeight;
    // A hidden tab asks nothing, because nobody reads it.
    document.addEventListener("visibilitychange", plan);
    plan();
  };

  function plan() {
    clearTimeout(timer);
    if (!stopped && !document.hidden) {
      timer = setTimeout(refresh, period);
    }
  }

  async function refresh() {
    let answer;
    try {
      answer = await fetch(`${log.dataset.url}?offset=${offset}`, {
        credentials: "same-origin",
        // A redirect leads to the form of a sign-in.
        redirect: "manual",
        signal: AbortSignal.timeout(10000),
      });
      if (answer.status < 500 && !answer.ok) {
        stop("refused");
        return;
      }
      if (!answer.ok) {
        throw new Error(answer.statusText);
      }
      show(await answer.json());
    } catch {
      period = Math.min(2 * period, LONGEST_PERIOD);
      say("offline");
    }
    plan();
  }

  function show(state) {
    period = PERIOD;
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    if (state.cut) {
      log.append(`\n${texts.cut}\n`);
    }
    if (state.text) {
      log.append(state.text);
      if (log.textContent.length > MAX_SHOWN) {
        log.textContent = log.textContent.slice(-MAX_SHOWN);
      }
    }
    offset = state.next_offset;
    if (atEnd) {
      log.scrollTop = log.scrollHeight;
    }
    showStatus(state);
    if (state.ended) {
      stop("ended");
    } else {
      say("live");
      // More of a long log is ready at once.
      if (state.text.length > 10000) {
        period = 0;
      }
    }
  }

  function showStatus(state) {
    const status = document.querySelector(".field-coloured_status .joblib-status");
    status.className = `joblib-status joblib-${state.status}`;
    status.textContent = state.label;
    const message = document.querySelector(".field-message_text pre");
    message.textContent = state.message;
    if (state.progress !== null) {
      const percent = Math.round(100 * state.progress);
      const bar = document.createElement("progress");
      bar.max = 100;
      bar.value = percent;
      document.querySelector(".field-progress_shown .readonly").replaceChildren(bar, ` ${percent}\u00a0%`);
    }
  }

  function stop(reason) {
    stopped = true;
    document.removeEventListener("visibilitychange", plan);
    say(reason);
  }

  function say(name) {
    // Set only on a change, because a screen reader reads it aloud each time.
    if (note.textContent !== texts[name]) {
      note.textContent = texts[name];
    }
  }
}
