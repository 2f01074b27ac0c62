// The parameters of a run as names and values, those inside objects by their path: `hyperparameters.C`.

/**
 * The parameters of a run, hyperparameters first.
 *
 * @param {{parameters: Record<string, unknown>}} run
 * @returns {[string, any][]}
 */
export const parametersOf = ({ parameters }) => flat(parameters, "").sort(([one], [other]) => byName(one, other));

/** @param {string} one @param {string} other */
export function byName(one, other) {
  const rank = (name) => Number(!name.startsWith("hyperparameters."));
  return rank(one) - rank(other) || (one < other ? -1 : 1);
}

/** @param {any} value @param {string} path @returns {[string, any][]} */
function flat(value, path) {
  const entries = value && typeof value === "object" && !Array.isArray(value) ? Object.entries(value) : [];
  if (!entries.length) return path ? [[path, value]] : [];
  return entries.flatMap(([name, inner]) => flat(inner, path ? `${path}.${name}` : name));
}
