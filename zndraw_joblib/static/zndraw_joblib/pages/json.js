// JSON whose integers beyond 2^53 keep their digits, because JavaScript's numbers would round them.

const isUnsafe = (value, source) =>
  typeof value === "number" && /^-?\d+$/.test(source) && !Number.isSafeInteger(value);

/**
 * Parses JSON. An integer that a number cannot hold becomes `JSON.rawJSON(digits)`, which
 * `JSON.stringify` writes as it came; a browser without it gets the rounded number.
 */
export function parseJSON(text) {
  if (typeof JSON.rawJSON !== "function") return JSON.parse(text);
  return JSON.parse(text, (key, value, context) =>
    isUnsafe(value, context.source) ? JSON.rawJSON(context.source) : value,
  );
}

/** Whether a value that `parseJSON` returned is an integer beyond 2^53, whose digits it has. */
export const isBigInteger = (value) =>
  typeof JSON.isRawJSON === "function" && JSON.isRawJSON(value);

/** Whether a value that `parseJSON` returned is a JSON object. */
export const isObject = (value) =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !isBigInteger(value);
