// Cards of the rows that were found, and the dialog that shows one of them.
import { crop, row, search, tracklet } from "./api.js";
import { t } from "./texts.js";

/** @param {string} tag @param {Record<string, unknown>} [properties] @param {...(Node | string)} children @returns {any} */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, String(value));
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** An image of a row, filled in when it has come. @param {string} key @param {string} label */
export function cropOf(key, label) {
  const place = make("span", { className: "none" }, "");
  crop(key).then((url) => {
    if (url) place.replaceWith(make("img", { src: url, alt: label }));
    else place.textContent = t("hit.nocrop");
  });
  return place;
}

/** @param {string} time */
export function timeText(time) {
  return time ? time.replace("T", " ").replace(/\.\d+/, "").replace("Z", " UTC") : t("hit.notime");
}

/** A probability, never without what it assumes. @param {any} hit */
export function chance(hit) {
  const value = hit.probability < 0.001 ? "<0.1 %" : hit.probability > 0.999 ? ">99.9 %" : `${(100 * hit.probability).toFixed(1)} %`;
  return t("hit.probability", { value, among: Math.round(1 / hit.prior).toLocaleString("en") });
}

/** @param {any} hit */
export function factsOf(hit) {
  return t("detail.facts", { camera: hit.camera, modality: t(hit.modality), time: timeText(hit.time) });
}

/**
 * One card.
 * @param {any} hit @param {number} rank @param {{open: Function, judge: Function, mark: Function, marked: boolean}} does
 */
export function card(hit, rank, does) {
  const score = hit.score.toFixed(3);
  const label = t("hit.label", { rank, score, camera: hit.camera, modality: t(hit.modality), time: timeText(hit.time) });
  const open = make("button", { type: "button", className: "crop", "aria-label": label }, cropOf(hit.key, ""));
  open.addEventListener("click", () => does.open());
  const facts = make("div", { className: "facts" }, make("div", { className: "rank" }, `${rank}. ${score}`));
  if (hit.probability !== null) facts.append(make("div", {}, chance(hit)));
  facts.append(make("div", {}, factsOf(hit)));
  if (hit.tracklet) facts.append(make("div", {}, `${t("tracklet")} ${hit.tracklet}`));
  if (hit.person) facts.append(make("div", {}, `${t("person")} ${hit.person}`));
  if (hit.group) facts.append(make("div", {}, t("hit.members", { count: hit.members.length })));
  const button = (sign, name, pressed, act) => {
    const one = make("button", { type: "button", title: t(name), "aria-label": `${t(name)}: ${rank}`, "aria-pressed": pressed }, sign);
    one.addEventListener("click", act);
    return one;
  };
  const actions = make(
    "div",
    { className: "actions" },
    button("✓", "hit.like", hit.marked === "like", () => does.judge("like")),
    button("✗", "hit.unlike", hit.marked === "unlike", () => does.judge("unlike")),
    button("★", "hit.mark", does.marked, () => does.mark()),
  );
  const item = make("li", { className: `${hit.marked} ${does.marked ? "marked" : ""}` }, open, facts, actions);
  item.addEventListener("keydown", (event) => {
    const act = { l: () => does.judge("like"), u: () => does.judge("unlike"), m: () => does.mark() }[event.key.toLowerCase()];
    if (act && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      act();
    }
  });
  return item;
}

/** Arrow keys go from card to card, as they lie on the screen. @param {HTMLElement} list */
export function walkByKeys(list) {
  list.addEventListener("keydown", (event) => {
    const cards = [...list.querySelectorAll("li > .crop")];
    const here = cards.indexOf(document.activeElement?.closest("li")?.querySelector(".crop"));
    if (here < 0) return;
    const top = cards[0].getBoundingClientRect().top;
    const columns = Math.max(1, cards.filter((one) => one.getBoundingClientRect().top === top).length);
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -here, End: cards.length - 1 - here };
    if (!(event.key in steps)) return;
    event.preventDefault();
    cards[Math.min(cards.length - 1, Math.max(0, here + steps[event.key]))].focus();
  });
}

/**
 * Show one hit: beside what is searched for, its tracklet, and its nearest rows.
 * @param {any} hit @param {string | null} asked address of the image that is searched for
 * @param {string[]} keys rows that are searched for @param {(key: string) => void} use
 */
export async function showDetail(hit, asked, keys, use) {
  const dialog = /** @type {HTMLDialogElement} */ (document.getElementById("detail"));
  document.getElementById("detail-title").textContent = t("detail.title", { key: hit.key });
  const body = document.getElementById("detail-body");
  const side = (content, text) => make("figure", {}, content, make("figcaption", {}, text));
  const pair = make("div", { className: "pair" });
  if (asked) pair.append(side(make("img", { src: asked, alt: t("detail.query") }), t("detail.query")));
  for (const key of keys.slice(0, 3)) if (!key.startsWith("tracklet:")) pair.append(side(cropOf(key, t("detail.query")), `${t("detail.query")}: ${key}`));
  pair.append(side(cropOf(hit.key, t("detail.found")), `${t("detail.found")}: ${factsOf(hit)}`));
  const again = make("button", { type: "button" }, t("detail.use"));
  again.addEventListener("click", () => {
    dialog.close();
    use(hit.key);
  });
  body.replaceChildren(pair, again);
  dialog.showModal();
  const strip = (title, rows) => {
    const list = make("div", { className: "strip" });
    for (const one of rows) {
      const button = make("button", { type: "button", "aria-label": `${one.key}, ${factsOf(one)}` }, cropOf(one.key, ""), make("span", { className: "facts" }, factsOf(one)));
      button.addEventListener("click", () => showDetail(one, asked, keys, use));
      list.append(button);
    }
    body.append(make("h2", {}, title), list);
  };
  if (hit.tracklet) strip(t("detail.tracklet"), await tracklet(hit.tracklet));
  const near = await search({ keys: [hit.key], top: 8 }, null);
  strip(t("detail.near"), near.hits);
}

/** What is known of a row that is no hit. @param {string} key */
export async function known(key) {
  return { ...(await row(key)), score: 1, probability: null, marked: "", members: [], group: null };
}
