// The turns of a conversation and what was chosen for it, kept for as long as the tab is open. Never the key.

import { store, stored } from "./storage.js";
import { Turn } from "./turn.js";

const LONGEST_CHAT_BYTES = 3 * 1024 * 1024; // the service takes 4 MiB, with all that is sent besides

export class Conversation {
  constructor({ pipeline = "", settings = {}, turns = [] } = {}) {
    this.pipeline = pipeline; // empty: the service's default one
    this.settings = settings; // the text of each form, by its name
    this.turns = turns.map((turn) => Turn.from(turn));
  }

  static restored() {
    try {
      return new Conversation(stored());
    } catch {
      return new Conversation(); // storage that is forbidden, or broken
    }
  }

  save() {
    store(this);
  }

  drop(turn) {
    this.turns = this.turns.filter((each) => each !== turn);
  }

  /**
   * Return `{asked, unsent}`: what a request asks, the question alone or the chat so far, and how many of the oldest
   * turns are not in it for their length. A turn without an answer was none.
   */
  asking(question) {
    const newest = { role: "user", content: question };
    const chats = this.turns.filter(({ answer }) => answer).map(messagesOf);
    const sent = newestWithin(LONGEST_CHAT_BYTES - bytesOf(newest), chats);
    const asked = sent.length ? { messages: [...sent.flat(), newest] } : { query: question };
    return { asked, unsent: chats.length - sent.length };
  }
}

const messagesOf = ({ question, answer }) => [
  { role: "user", content: question },
  { role: "assistant", content: answer },
];

/** Return as many of the newest as fit, without a gap. */
function newestWithin(bytes, chats) {
  const oldest = chats.findLastIndex((messages) => (bytes -= bytesOf(messages)) < 0);
  return chats.slice(oldest + 1);
}

const bytesOf = (value) => new TextEncoder().encode(JSON.stringify(value)).length;
