// The page: reads the form, asks, shows what was found.
import * as api from "./api.js";
import { clearPicture, hasPicture, picture, watchPicture } from "./picture.js";
import { card, known, make, showDetail, walkByKeys } from "./results.js";
import { saveCsv, saveHtml } from "./saving.js";
import { lines, loadTexts, t } from "./texts.js";
import { drawTimeline } from "./timeline.js";

const by = (id) => /** @type {any} */ (document.getElementById(id));
/** @type {string[]} */ let keys = [];
/** @type {Set<string>} */ let like = new Set();
/** @type {Set<string>} */ let unlike = new Set();
/** @type {Map<string, any>} */ const marked = new Map();
/** @type {any[]} */ let hits = [];
/** @type {string | null} */ let asked = null; // address of the image of the last search
let running = 0;

function say(text, bad = false) {
  by("status").textContent = text;
  by("status").classList.toggle("bad", bad);
}

/** Run something; when a token is missing, ask for it and run it again. @param {() => Promise<void>} work */
async function attempt(work) {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof api.Refused)) throw error;
    if (error.status !== 401) {
      say(error.message, true);
      return;
    }
    await askToken();
    await attempt(work);
  }
}

function askToken() {
  by("token").value = "";
  by("ask").showModal();
  return new Promise((resolve) => {
    by("ask-form").onsubmit = () => {
      api.useToken(by("token").value);
      resolve(undefined);
    };
  });
}

async function describe() {
  const info = await api.info();
  by("title").textContent = info.name;
  document.title = `${info.name} - gloam`;
  const cameras = new Map();
  for (const one of info.cameras) cameras.set(one.camera, (cameras.get(one.camera) ?? 0) + one.rows);
  const calibration = info.calibrated ? t("calibrated", { what: info.calibration }) : t("uncalibrated");
  by("sure").hidden = !info.calibrated;
  by("about").textContent = t("about", { rows: info.rows.toLocaleString("en"), cameras: cameras.size, role: info.role, calibration });
  by("cameras").replaceChildren(
    ...[...cameras].map(([camera, rows]) =>
      make("label", { className: "check" }, make("input", { type: "checkbox", value: String(camera) }), t("filter.camera", { camera, rows })),
    ),
  );
  by("top").max = String(info.top);
  by("drop").hidden = !info.can_embed;
}

function request() {
  return {
    keys,
    images: hasPicture() ? [{ modality: by("image-modality").value }] : [],
    where: {
      cameras: [...by("cameras").querySelectorAll("input:checked")].map((box) => Number(box.value)),
      after: by("after").value || null,
      before: by("before").value || null,
      modality: by("modality").value || null,
    },
    top: Number(by("top").value) || 20,
    group: by("group").value || null,
    rerank: by("rerank").checked && !by("group").value ? 100 : 0,
    exact: by("exact").checked,
    prior: by("sure").hidden ? null : 1 / Math.max(2, Number(by("prior").value) || 1000),
    fmr: by("sure").hidden ? null : Number(by("fmr").value) || null,
    like: [...like],
    unlike: [...unlike],
  };
}

async function find() {
  takeKey();
  if (!keys.length && !hasPicture()) {
    say(t("query.nothing"), true);
    return;
  }
  const number = ++running;
  const began = performance.now();
  say(t("results.searching"));
  const image = await picture();
  const answer = await api.search(request(), image);
  if (number !== running) return; // a later search is on its way
  if (asked) URL.revokeObjectURL(asked);
  asked = image ? URL.createObjectURL(image) : null;
  hits = answer.hits.map((hit, place) => ({ ...hit, rank: place + 1 }));
  const seconds = ((performance.now() - began) / 1000).toFixed(2);
  say(hits.length ? t("results.count", { count: hits.length, seconds }) : t("results.none"));
  by("notes").replaceChildren(...answer.notes.map((note) => make("li", {}, note)));
  show();
  // On a narrow screen the form is above what was found.
  if (matchMedia("(max-width: 760px)").matches && !document.activeElement?.closest("#hits")) by("results").scrollIntoView();
}

function show() {
  const focused = document.activeElement?.closest("#hits > li");
  const place = focused ? [...by("hits").children].indexOf(focused) : -1;
  by("hits").replaceChildren(
    ...hits.map((hit) =>
      card(hit, hit.rank, {
        marked: marked.has(hit.key),
        open: () => attempt(() => showDetail(hit, asked, keys, use)),
        judge: (word) => judge(hit, word),
        mark: () => mark(hit),
      }),
    ),
  );
  by("tools").hidden = !hits.length && !marked.size;
  by("marked").textContent = t("export.marked", { count: marked.size });
  by("time").hidden = !drawTimeline(by("timeline"), hits, (number) => attempt(() => showDetail(hits[number], asked, keys, use)));
  if (place >= 0) by("hits").children[Math.min(place, hits.length - 1)]?.querySelector(".crop").focus();
}

function judge(hit, word) {
  const [one, other] = word === "like" ? [like, unlike] : [unlike, like];
  other.delete(hit.key);
  if (!one.delete(hit.key)) one.add(hit.key);
  attempt(find);
}

function mark(hit) {
  if (!marked.delete(hit.key)) marked.set(hit.key, hit);
  show();
}

/** Search for a row of the gallery instead. @param {string} key */
function use(key) {
  clearPicture();
  setKeys([key]);
  attempt(async () => {
    if (!key.startsWith("tracklet:")) await known(key);
    await find();
  });
}

function takeKey() {
  const typed = by("key").value.trim();
  if (typed && !keys.includes(typed)) setKeys([...keys, typed]);
  by("key").value = "";
}

function setKeys(wanted) {
  keys = wanted;
  forgetJudgements();
  by("keys").replaceChildren(
    ...keys.map((key) => {
      const chip = make("button", { type: "button", "aria-label": `${t("query.remove")}: ${key}` }, `${key} ×`);
      chip.addEventListener("click", () => setKeys(keys.filter((one) => one !== key)));
      return make("li", {}, chip);
    }),
  );
}

/** What was said of matches counts for one person only. */
function forgetJudgements() {
  like = new Set();
  unlike = new Set();
}

function showHelp() {
  by("detail-title").textContent = t("help.title");
  by("detail-body").replaceChildren(...lines("help.body").map((line) => make("p", {}, line)));
  by("detail").showModal();
}

function save(how) {
  const chosen = [...marked.values()];
  if (!chosen.length) say(t("export.nothing"), true);
  else attempt(async () => how(chosen, by("about").textContent));
}

await loadTexts();
watchPicture((message) => say(message, true), forgetJudgements);
walkByKeys(by("hits"));
by("query").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(find);
});
by("key").addEventListener("keydown", (event) => {
  if (event.key === "," && by("key").value.trim()) {
    event.preventDefault();
    takeKey();
  }
});
by("help").addEventListener("click", showHelp);
by("ask").addEventListener("cancel", (event) => event.preventDefault());
by("save-csv").addEventListener("click", () => save(saveCsv));
by("save-html").addEventListener("click", () => save(saveHtml));
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input, textarea, select")) {
    event.preventDefault();
    by("key").focus();
  }
});
await attempt(describe);
document.body.dataset.ready = "yes";
