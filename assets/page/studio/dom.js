/** Elements of the page, made in one line each. Every text becomes a text node: nothing that is shown is ever markup. */

/**
 * An element with properties, attributes, listeners (`onclick` …) and children.
 * @param {string} tag
 * @param {Record<string, any>} [given]
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function make(tag, given = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(given)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

/** @param {string} title @param {(event: Event) => void} press @param {Record<string, any>} [given] */
export function button(title, press, given = {}) {
  return make("button", { type: "button", onclick: press, ...given }, title);
}

/** A choice among `options`: [value, what it is called]. @param {string} label @param {[string, string][]} options */
export function choice(label, options, change) {
  const made = make("select", { "aria-label": label, onchange: () => change(made.value) });
  made.append(...options.map(([value, title]) => make("option", { value }, title)));
  return made;
}

/** `1 picture`, `2,000 pictures`. @param {number} number @param {string} noun */
export function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

/** Whether two lists hold the same, in the same order. @param {any[]} one @param {any[]} other */
export function alike(one, other) {
  return one.length === other.length && one.every((each, at) => each === other[at]);
}
