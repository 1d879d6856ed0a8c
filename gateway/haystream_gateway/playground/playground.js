// Puts the page together: who asks, how the answer is read, and which key does what.

import { Refusal, cancelRun } from "./api.js";
import { Catalogue } from "./catalogue.js";
import { Conversation } from "./conversation.js";
import { at } from "./elements.js";
import { Following } from "./following.js";
import { Identity } from "./identity.js";
import * as panel from "./panel.js";
import { GRACE_SECONDS, Lost, framesOf, newRunId } from "./run.js";
import { Settings } from "./settings.js";
import { readOut, say } from "./status.js";
import { Turn } from "./turn.js";
import { TurnView } from "./turn-view.js";

const conversation = Conversation.restored();
const settings = new Settings(conversation.settings, () => conversation.save());
const identity = new Identity(() => catalogue.refresh());
const catalogue = new Catalogue(conversation, settings, sayHowItIs);
const following = new Following(at("newest"), panel.isOpen);
let running = null; // {turn, view, controller} of the answer that is coming

// Asking

/** Ask; false where that is not possible, which is then said where it is wrong. */
function ask(question) {
  if (running || !question.trim()) return false;
  const extras = settings.request();
  if (settings.firstWrong) {
    panel.showField(settings.firstWrong);
    return false;
  }
  const { asked, unsent } = conversation.asking(question);
  const turn = new Turn({ question, pipeline: conversation.pipeline, runId: newRunId(), unsent });
  const request = {
    ...asked,
    ...extras,
    pipeline: conversation.pipeline,
    run_id: turn.runId,
    on_disconnect: "continue",
    disconnect_grace_seconds: GRACE_SECONDS,
  };
  conversation.turns.push(turn);
  conversation.save(); // whatever becomes of this page, the run can be read again from its beginning
  read(turn, shown(turn), request);
  return true;
}

function askAgain(turn, view) {
  const place = conversation.turns.indexOf(turn);
  conversation.turns.splice(place, 1);
  if (!ask(turn.question)) return conversation.turns.splice(place, 0, turn);
  view.element.remove();
  at("query").focus();
}

function stop() {
  if (!running) return;
  cancelRun(running.turn.runId).catch(() => {}); // out of reach: the run ends with its grace
  running.controller.abort();
}

function startOver() {
  stop();
  running = null;
  conversation.turns = [];
  conversation.save();
  at("turns").replaceChildren();
  at("welcome").hidden = false;
  rest();
  at("query").focus();
}

// Reading

/** Read a run to its end: one that is begun with this request, or else one that goes on from where the turn is. */
async function read(turn, view, request) {
  const controller = new AbortController();
  running = { turn, view, controller };
  at("send").hidden = true;
  at("stop").hidden = false;
  say("waiting", "busy");
  following.begin();
  try {
    const run = { runId: turn.runId, seq: turn.seq, request, signal: controller.signal };
    const onLost = (attempt, attempts) => {
      turn.isBroken = true;
      say(`connection lost, trying again (${attempt} of ${attempts})`, "trouble");
    };
    const onConnected = () => say("answering", "busy");
    for await (const frame of framesOf(run, { onLost, onConnected })) {
      turn.take(frame);
      drawSoon();
    }
    turn.end({ kind: "problem", message: "Nothing more is known of this answer." }); // unless it has an ending
  } catch (error) {
    if (controller.signal.aborted) turn.end({ kind: "stopped" });
    else fail(turn, error, request);
  } finally {
    if (running?.turn === turn) finish();
  }
}

function fail(turn, error, request) {
  turn.fail(error.reason === "RUN_NOT_FOUND" ? lostWords(turn) : wordsOf(error));
  const wrong = identity.complain(error) ?? (request && settings.complain(error));
  if (wrong) panel.showField(wrong);
}

function lostWords({ seq }) {
  return seq === 0
    ? "This answer is lost: its question did not arrive, or its run was stopped while nobody read it."
    : "The rest of this answer is lost: its run was stopped while nobody read it.";
}

/** Whatever becomes of the drawing, the next question can be asked. */
function finish() {
  const { turn } = running;
  try {
    draw();
  } finally {
    running = null;
    rest();
    readOut(turn);
    conversation.save();
  }
}

// Showing

function shown(turn) {
  const view = new TurnView(turn, { onAgain: () => askAgain(turn, view) });
  view.show();
  at("turns").append(view.element);
  at("welcome").hidden = true;
  return view;
}

/** Show a turn that was stored, and read on where it has no end. One that cannot be drawn is dropped. */
function restore(turn) {
  let view;
  try {
    view = shown(turn);
  } catch (error) {
    console.warn("An earlier turn cannot be shown.", error);
    conversation.drop(turn);
    return;
  }
  if (turn.isOver) return;
  turn.isBroken = true;
  read(turn, view);
}

let isDrawing = false;

/** However many frames come, the page is drawn once for each picture of the screen. */
function drawSoon() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    if (running) draw();
  });
}

function draw() {
  running.view.show();
  catalogue.mark(running.turn.speaker.component);
  following.keepUp();
}

function rest() {
  at("send").hidden = false;
  at("stop").hidden = true;
  catalogue.mark(null);
  say("ready");
}

function sayHowItIs(error) {
  if (running) return;
  say(error ? wordsOf(error) : "ready", error ? "trouble" : "calm");
  const missing = error && identity.complain(error);
  if (missing) panel.showField(missing);
}

function wordsOf(error) {
  return error instanceof Refusal || error instanceof Lost ? error.message : "The gateway cannot be reached.";
}

// The page's controls

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const query = at("query");
  if (!ask(query.value)) return;
  query.value = "";
  query.focus();
});
at("query").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return; // an input method's Enter chooses a word
  event.preventDefault();
  at("ask").requestSubmit();
});
at("stop").addEventListener("click", () => (stop(), at("query").focus()));
at("new").addEventListener("click", startOver);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  if (panel.isOpen()) panel.close();
  else if (!event.target.closest("#settings :is(input, select, textarea)")) stop(); // a field has its own use for it
});
addEventListener("pagehide", () => conversation.save());
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") catalogue.refresh();
  else conversation.save(); // a phone may end a page that nobody sees without a word
});

catalogue.refresh();
for (const turn of conversation.turns) restore(turn);
