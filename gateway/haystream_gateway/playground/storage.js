// What a conversation is after a reload. A tab stores some five million characters: what hardly matters goes first.

const NAME = "haystream.conversation";
const KEY = `${NAME}.2`; // another shape of what is stored is another number

/** Return what was stored, without what other versions of the page have left. Throws where storage is forbidden. */
export function stored() {
  const others = Object.keys(sessionStorage).filter((key) => key.startsWith(NAME) && key !== KEY);
  for (const key of others) sessionStorage.removeItem(key);
  return JSON.parse(sessionStorage.getItem(KEY)) ?? {};
}

export function store(conversation) {
  for (const turns of lessAndLess(conversation.turns)) {
    try {
      sessionStorage.setItem(KEY, JSON.stringify({ ...conversation, turns }));
      return;
    } catch {
      // over the browser's quota: try with less
    }
  }
}

/** Yield all turns, then without the outputs, without long texts beside the answers, and without the oldest turns. */
function* lessAndLess(turns) {
  yield turns;
  const plain = turns.map(withoutOutputs);
  yield plain;
  const bare = plain.map(withoutTexts);
  for (let oldest = 0; oldest <= bare.length; oldest++) yield bare.slice(oldest);
}

function withoutOutputs(turn) {
  const { outputs = {}, unkept_outputs: unkept = [], ...ending } = turn.ending ?? {};
  return turn.ending
    ? { ...turn, ending: { ...ending, unkept_outputs: [...unkept, ...Object.keys(outputs)] } }
    : turn;
}

/** What documents and tools say is then shown as what the service has cut. */
function withoutTexts(turn) {
  const cut = { truncated: true };
  const bareDocument = (document) => ({ ...document, content: "", ...cut });
  const barePart = (part) => (part.result ? { ...part, result: { ...part.result, text: "", ...cut } } : part);
  return {
    ...turn,
    findings: turn.findings.map((found) => ({ ...found, documents: found.documents.map(bareDocument) })),
    voices: turn.voices.map((voice) => ({ ...voice, parts: voice.parts.map(barePart) })),
  };
}
