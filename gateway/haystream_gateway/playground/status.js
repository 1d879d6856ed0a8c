// What is told beside the answers: how things stand, for all to see, and what has come, for those who listen.

import { at } from "./elements.js";

const LONGEST_READ_OUT = 600; // characters

/** Say how things stand; the mood, `calm`, `busy` or `trouble`, gives it its colour. Said again it is not repeated. */
export function say(words, mood = "calm") {
  const state = at("state");
  if (state.textContent !== words) state.textContent = words;
  state.dataset.mood = mood;
}

/** Have a screen reader read an answer, once, when all of it is there. */
export function readOut({ ending, answer }) {
  const words = { problem: ending.message, stopped: "Stopped.", end: `Answer: ${answer}` }[ending.kind];
  const isLong = words.length > LONGEST_READ_OUT;
  at("announcer").textContent = isLong ? `${words.slice(0, LONGEST_READ_OUT)} … The rest is on the page.` : words;
}
