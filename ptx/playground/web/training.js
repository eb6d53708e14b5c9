// The training panel: asks the server what is new, and hands it to the form, the run's bar and the
// curves.
ptx.training = ({ element, server }) => {
  const { el, number, axes } = ptx;
  const LIVE = 1000; // ms between two questions while something is going on
  const IDLE = 3000;
  const STATES = {
    training: "training", pausing: "finishing its step and saving", paused: "paused",
    stopped: "stopped", finished: "finished", failed: "failed", done: "",
    elsewhere: "trained by another process",
  };
  const JOBS = { prepare: "Preparing", estimate: "Timing", train: "Training" };

  const narrow = window.matchMedia("(max-width: 860px)");

  let options = null; // the version of the form's options that is known
  let run = null; // the run at hand, as the server lists it
  let chosen = ""; // its key
  let refused = ""; // why the last action was not done
  let pace = { run: "", speed: 0 }; // tokens a second, lately

  // ---- parts -----------------------------------------------------------------------------------

  const button = (label, title, call, kind = "quiet") => ptx.button(label, call, { class: kind, title });
  const form = ptx.trainingForm({ act });
  const curves = ptx.curves({ onChoose: choose });
  const details = el("details", { class: "new-run", open: "" }, el("summary", {}, "New run"), form.element);
  const off = el("p", { class: "message", hidden: "" }, "Training is turned off on this page. Its runs can be looked at; to train, run python app.py on a machine of your own.");
  const sentence = el("span", {});
  const problem = el("div", { class: "message error", role: "alert", hidden: "" }, sentence,
    button("Close", "Put this message away", () => act({ do: "dismiss" })));

  const state = el("span", { class: "state", role: "status" });
  const bar = el("progress", { max: "1", "aria-label": "Progress of the run" });
  const place = el("span", { class: "stats" });
  const pause = button("Pause", "Finish this step, save, and end; resume later", () => act({ do: "pause" }));
  const resume = button("Resume", "Go on from the newest checkpoint", () => act({ do: "resume", run: chosen }), "primary");
  const stop = button("Stop", "Finish this step, save, and end; Resume can still go on", () => act({ do: "stop" }));
  const now = button("End now", "What came after the newest checkpoint is lost", () => act({ do: "stop", now: true }));
  const play = button("Play with this checkpoint", "Open the newest checkpoint in Write", toWrite);
  const lines = el("pre", { class: "code output", tabindex: "0" });
  const output = el("details", { class: "output", hidden: "" }, el("summary", {}, "What it said last"), lines);
  const runBar = el("div", { class: "run-bar" },
    el("div", { class: "bar" }, state, place), bar,
    el("div", { class: "buttons", role: "group", "aria-label": "The run" }, pause, resume, stop, now, play), output);

  const jobTitle = el("span", { class: "state live", role: "status" });
  const jobPlace = el("span", { class: "stats" });
  const jobBar = el("progress", { max: "1", "aria-label": "Progress of the work" });
  const jobLines = el("pre", { class: "code output", tabindex: "0" });
  const cancel = button("Cancel", "End it; finished parts are kept", () => act({ do: "pause" }));
  const jobCard = el("div", { class: "job", hidden: "" },
    el("div", { class: "bar" }, jobTitle, jobPlace, cancel), jobBar, jobLines);

  const empty = el("div", { class: "empty", hidden: "" },
    el("p", {}, "No run yet. Start one here, or in a terminal; it appears by itself:"),
    el("pre", { class: "code" }, "python prepare/run.py installed\npython train/run.py --preset nano"));
  const command = el("p", { class: "hint command", hidden: "" });
  const content = el("div", { class: "training-content" }, runBar, curves.element);
  const side = el("div", { class: "training-side" }, off, problem, details, jobCard, command);
  element.replaceChildren(el("section", { class: "training-panel" }, side, el("div", { class: "training-main" }, empty, content)));
  details.hidden = true;
  const summary = details.firstChild;

  // What a person pressed may go: then the next thing to do has the focus.
  const keepFocus = (change) => ptx.keepFocus(change, (held) =>
    side.contains(held) ? [cancel, summary, curves.choice] : [resume, pause, play, curves.choice, summary]);

  // ---- asking ----------------------------------------------------------------------------------

  let asking = false;
  let again = false; // something changed while a question was under way
  async function ask() {
    if (asking) {
      again = true;
      return;
    }
    asking = true;
    const asked = chosen;
    const answer = await server.follow({ run: chosen, shown: curves.wanted(), options }).catch(() => undefined);
    asking = false;
    let more = again;
    again = false;
    if (answer && chosen === asked) keepFocus(() => (more = take(answer) || more));
    if (more) ask();
  }

  function take(answer) {
    chosen = answer.run;
    run = answer.runs.find(({ key }) => key === chosen) ?? null;
    if (answer.options) {
      options = answer.options.version;
      off.hidden = answer.options.training;
      details.hidden = !answer.options.training;
      if (answer.options.training) form.offer(answer.options);
    }
    complain(refused || answer.problem);
    empty.hidden = Boolean(chosen);
    content.hidden = !chosen;
    drawJob(answer.job);
    if (run) drawRun(answer.job, answer.shown[chosen]?.latest ?? {});
    return chosen ? curves.take(answer) : false;
  }

  async function act(request) {
    const answer = await server.act(request).catch(() => undefined);
    if (answer?.run) choose(answer.run);
    const inForm = request.do === "start" || request.do === "estimate"; // which says it itself
    refused = inForm ? "" : (answer ? answer.error : "The server did not answer; try again.") ?? "";
    complain(refused);
    ask();
    return answer;
  }

  function complain(text) {
    ptx.say(sentence, text ?? "");
    keepFocus(() => (problem.hidden = !text));
  }

  function choose(key) {
    chosen = key;
    ask();
  }

  // ---- drawing ---------------------------------------------------------------------------------

  let jobBefore = null;
  let kindBefore = null;
  function drawJob(job) {
    form.busy(Boolean(job));
    const shown = job && (job.kind !== "train" || chosen !== `runs/${job.name}`);
    jobCard.hidden = !shown;
    command.hidden = !job;
    command.textContent = job ? `In a terminal: ${job.command}` : "";
    if (Boolean(job) !== Boolean(jobBefore) && narrow.matches) details.open = !job; // what goes on is worth the room
    if (job?.kind === "train" && kindBefore === "prepare") choose(`runs/${job.name}`);
    kindBefore = (job ?? jobBefore)?.kind; // between two that follow each other there is none for a moment
    jobBefore = job;
    if (!shown) return;
    ptx.say(jobTitle, `${job.asked ? "Ending" : JOBS[job.kind]}: ${job.name}`);
    jobPlace.textContent = axes.duration(job.seconds);
    const percent = [...job.lines].reverse().map((line) => /(\d+) %/.exec(line)).find(Boolean);
    if (percent) jobBar.value = Number(percent[1]) / 100;
    else jobBar.removeAttribute("value");
    jobLines.textContent = job.lines.slice(-3).join("\n");
    jobLines.hidden = !job.lines.length;
    cancel.hidden = job.kind === "train";
    cancel.disabled = Boolean(job.asked);
  }

  function drawRun(job, latest) {
    const mine = job?.kind === "train" && chosen === `runs/${job.name}` ? job : null;
    const live = run.state === "training" || run.state === "elsewhere";
    const starting = run.state === "training" && !run.step;
    ptx.say(state, starting ? "starting" : STATES[run.state]);
    state.className = `state ${run.state}${live || run.state === "pausing" ? " live" : ""}`;
    const parts = [run.steps ? `step ${number(run.step)} of ${number(run.steps)}` : `step ${number(run.step)}`];
    if (starting && mine) parts.push(axes.duration(mine.seconds));
    if (live && run.steps && latest.tokens_per_s && latest.tokens && run.step) {
      const left = ((run.steps - run.step) * (latest.tokens / latest.step)) / lately(latest.tokens_per_s);
      parts.push(`${axes.duration(left)} left`);
    }
    place.textContent = parts.join(" · ");
    bar.hidden = !run.steps;
    if (starting) bar.removeAttribute("value"); // it only says that something goes on
    else bar.value = run.steps ? run.step / run.steps : 0;
    const can = options !== "off";
    pause.hidden = stop.hidden = run.state !== "training" || !mine;
    now.hidden = run.state !== "pausing" || !mine;
    resume.hidden = !can || !["paused", "stopped", "failed"].includes(run.state);
    resume.disabled = Boolean(job);
    play.hidden = run.checkpoint === null;
    play.textContent = `Play with ${run.checkpoint === run.steps ? "it" : `step ${number(run.checkpoint ?? 0)}`}`;
    const said = mine?.lines.length ? mine.lines : run.lines;
    output.hidden = !said.length;
    lines.textContent = said.join("\n");
    if (run.state === "failed" && output.dataset.run !== chosen) output.open = true;
    output.dataset.run = run.state === "failed" ? chosen : "";
  }

  // One step's speed says little: the first compile, and others disturb some.
  function lately(speed) {
    if (pace.run !== chosen) pace = { run: chosen, speed };
    pace.speed += 0.1 * (speed - pace.speed);
    return pace.speed;
  }

  async function toWrite() {
    await ptx.chooseModel(chosen);
    const { key } = ptx.store.state.model; // of a run, its checkpoint's
    if (key !== chosen && !key.startsWith(`${chosen}/checkpoints/`)) return; // the header says why
    const write = [...document.querySelectorAll("[role=tab]")].find((tab) => tab.textContent.trim() === "Write");
    write?.focus(); // the button goes with its tab
    write?.click();
  }

  // ---- time ------------------------------------------------------------------------------------

  ptx.training.ask = ask;
  ask();
  let since = 0;
  const timer = setInterval(() => {
    since += LIVE;
    const live = jobBefore || ["training", "pausing", "elsewhere"].includes(run?.state);
    if (!element.isConnected) clearInterval(timer);
    else if (element.offsetParent && !document.hidden && (live || since >= IDLE)) {
      since = 0;
      ask();
    }
  }, LIVE);
};
