// Sightings on a line for each camera.
import { t } from "./texts.js";
import { timeText } from "./results.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 900, LANE = 34, LEFT = 110, RIGHT = 20, AXIS = 26;

function draw(tag, properties, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties)) element.setAttribute(name, String(value));
  element.textContent = text;
  return element;
}

/** @param {HTMLElement} place @param {any[]} hits @param {(number: number) => void} open @returns {boolean} is there one? */
export function drawTimeline(place, hits, open) {
  const seen = hits.map((hit, number) => ({ hit, number, at: Date.parse(hit.time) })).filter((one) => !Number.isNaN(one.at));
  place.replaceChildren();
  if (seen.length < 2) return false;
  const cameras = [...new Set(seen.map((one) => one.hit.camera))].sort((one, other) => one - other);
  const times = seen.map((one) => one.at);
  const first = Math.min(...times), span = Math.max(1, Math.max(...times) - first);
  const height = cameras.length * LANE + AXIS;
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "group", "aria-label": t("time.title") });
  const x = (at) => LEFT + ((at - first) / span) * (WIDTH - LEFT - RIGHT);
  cameras.forEach((camera, lane) => {
    const y = lane * LANE + LANE / 2;
    svg.append(draw("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y }));
    svg.append(draw("text", { x: 4, y: y + 4 }, t("time.camera", { camera })));
  });
  for (const [part, anchor] of [[0, "start"], [0.5, "middle"], [1, "end"]]) {
    const at = first + part * span;
    svg.append(draw("text", { x: x(at), y: height - 6, "text-anchor": anchor }, timeText(new Date(at).toISOString())));
  }
  for (const { hit, number, at } of seen) {
    const label = t("hit.label", { rank: number + 1, score: hit.score.toFixed(3), camera: hit.camera, modality: t(hit.modality), time: timeText(hit.time) });
    const dot = draw("circle", { cx: x(at), cy: cameras.indexOf(hit.camera) * LANE + LANE / 2, r: 7, tabindex: 0, role: "button", "aria-label": label, "fill-opacity": Math.max(0.25, Math.min(1, hit.score)) });
    dot.append(draw("title", {}, label));
    dot.addEventListener("click", () => open(number));
    dot.addEventListener("keydown", (event) => (event.key === "Enter" || event.key === " ") && open(number));
    svg.append(dot);
  }
  place.append(svg);
  return true;
}
