// An answer in numbers. Until the provider tells its own count, tokens are estimated, and marked as such.

const CHARACTERS_PER_TOKEN = 4;
const SHORTEST_SECONDS = 0.1; // of less a speed says nothing

const ENDINGS = {
  STOP: "complete",
  LENGTH: "cut at the token limit",
  TOOL_CALLS: "asks for a tool",
  CONTENT_FILTER: "cut by the provider’s filter",
  INCOMPLETE: "broken off by the provider",
};

/** Return `{first, speed, tokens, ending}` in words: "–" for what is still to come, nothing for what there is not. */
export function figuresOf(turn) {
  const { asked, first, last } = turn.times;
  const counted = tokensOf(turn.ending?.usage);
  const tokens = counted || Math.round(turn.characters / CHARACTERS_PER_TOKEN);
  const seconds = first === null ? 0 : (last - first) / 1000;
  const none = turn.isOver ? "" : "–";
  const speed = `${about(counted && !turn.isBroken)}${Math.round(tokens / seconds)} tokens/s`;
  return {
    first: first === null ? none : `${first - asked} ms`,
    speed: seconds < SHORTEST_SECONDS ? none : speed,
    tokens: tokens ? `${about(counted)}${tokens}` : none,
    ending: endingOf(turn.ending),
  };
}

const about = (isKnown) => (isKnown ? "" : "≈ ");

function tokensOf(usage = []) {
  return usage.reduce((sum, { completion_tokens: tokens }) => sum + tokens, 0);
}

function endingOf(ending) {
  if (ending === null) return "";
  if (ending.kind === "end") return ENDINGS[ending.reason] ?? ending.reason.toLowerCase();
  return ending.kind === "stopped" ? "stopped" : "failed";
}
