// All words of the page, from one file: a translation is another texts.XX.json.
let texts = {};

/** Load the words and put them where elements ask for them (data-text: content, data-label: aria-label). */
export async function loadTexts() {
  texts = await (await fetch("/texts.en.json")).json();
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = texts[element.dataset.text];
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", texts[element.dataset.label]);
}

/** A text with {name} replaced. @param {string} key @param {Record<string, unknown>} [values] @returns {string} */
export function t(key, values = {}) {
  return String(texts[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

/** A text of several lines. @param {string} key @returns {string[]} */
export function lines(key) {
  return texts[key] ?? [];
}
