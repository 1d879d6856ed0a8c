// From a JSON Schema to the fields of a form, and from what is typed there to values. Knows no page.

const QUESTIONS = new Set(["query", "question"]); // sockets of these names are filled already, as a rule

/**
 * Return `{path, component, name, kind, choices, placeholder, isRequired, note, schema}` for each socket, the required
 * ones first.
 */
export function fieldsOf({ properties = {}, required = [] }) {
  const fields = Object.entries(properties).flatMap(([component, { properties: sockets = {}, required: names = [] }]) =>
    Object.entries(sockets).map(([name, schema]) => ({
      path: `${component}.${name}`,
      component,
      name,
      isRequired: required.includes(component) && names.includes(name),
      ...shapeOf(name, schema),
    })),
  );
  return fields.sort((one, other) => other.isRequired - one.isRequired); // stable: otherwise the schema's order
}

function shapeOf(name, schema) {
  const plain = { ...schema, ...wantedOf(schema) };
  return {
    schema: plain,
    kind: kindOf(plain),
    choices: plain.enum ?? [],
    placeholder: "default" in schema ? asTyped(schema.default) : QUESTIONS.has(name) ? "your question" : "",
    note: plain.description ?? noteOf(plain),
  };
}

/** Of `anyOf` a value or null, the value: what is left empty is not sent. Of several values nobody knows which. */
function wantedOf({ anyOf = [] }) {
  const wanted = anyOf.filter(({ type }) => type !== "null");
  return wanted.length === 1 ? wanted[0] : {};
}

function kindOf({ enum: choices, type }) {
  if (choices) return "choice";
  return ["string", "integer", "number", "boolean", "array", "object"].includes(type) ? type : "any";
}

function noteOf({ type, items, minimum, maximum }) {
  if (type === "array") return items?.type === "string" ? 'JSON list, such as ["one", "two"]' : "JSON list";
  if (type === "object") return "JSON object";
  if (minimum !== undefined && maximum !== undefined) return `from ${minimum} to ${maximum}`;
  if (minimum !== undefined) return `at least ${minimum}`;
  return maximum === undefined ? "" : `at most ${maximum}`;
}

export const asTyped = (value) => (typeof value === "string" ? value : JSON.stringify(value));

/** Return the value of what was typed, undefined for nothing. Throws an Error that says what is expected. */
export function valueOf(field, typed) {
  if (typed.trim() === "") {
    if (field.isRequired) throw new Error("This pipeline needs a value here.");
    return undefined;
  }
  const value = READ[field.kind](typed, field);
  checkLimits(value, field.schema);
  return value;
}

const READ = {
  string: (typed) => typed,
  choice: (typed, { choices }) => choices.find((choice) => asTyped(choice) === typed),
  boolean: (typed) => typed === "true",
  integer: (typed) => numberOf(typed, Number.isSafeInteger, "Expected a whole number, such as 3."),
  number: (typed) => numberOf(typed, Number.isFinite, "Expected a number, such as 0.5."),
  array: (typed) => jsonOf(typed, Array.isArray, 'Expected a JSON list, such as ["one", "two"].'),
  object: (typed) => jsonOf(typed, isObject, 'Expected a JSON object, such as {"name": "value"}.'),
  any: anythingOf,
};

function numberOf(typed, isRight, complaint) {
  const value = Number(typed.trim().replace(",", "."));
  if (!isRight(value)) throw new Error(complaint);
  return value;
}

function jsonOf(typed, isRight, complaint) {
  const value = anythingOf(typed);
  if (!isRight(value)) throw new Error(complaint);
  return value;
}

/** JSON where it is JSON, or else text: a socket may take both. */
function anythingOf(typed) {
  try {
    return JSON.parse(typed);
  } catch {
    return typed;
  }
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

function checkLimits(value, { minimum, maximum, minLength, maxLength }) {
  if (value < minimum) throw new Error(`Expected at least ${minimum}.`);
  if (value > maximum) throw new Error(`Expected at most ${maximum}.`);
  if (value.length < minLength) throw new Error(`Expected at least ${minLength} characters.`);
  if (value.length > maxLength) throw new Error(`Expected at most ${maxLength} characters.`);
}
