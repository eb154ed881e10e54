// The marked matches as a file: made here, sent nowhere.
import { cropFile } from "./api.js";
import { timeText } from "./results.js";
import { t } from "./texts.js";

const COLUMNS = ["rank", "score", "probability", "prior", "key", "camera", "time", "modality", "tracklet", "person"];

/** A cell that no spreadsheet takes for a formula (OWASP, CSV injection). @param {unknown} value */
export function cell(value) {
  const text = value === null || value === undefined ? "" : String(value);
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function save(name, content, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** @param {any[]} hits with their ranks */
export function saveCsv(hits) {
  const lines = [COLUMNS, ...hits.map((hit) => COLUMNS.map((name) => hit[name]))];
  save("matches.csv", lines.map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n", "text/csv");
}

function escape(value) {
  const signs = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return String(value ?? "").replace(/[&<>"']/g, (sign) => signs[sign]);
}

function inline(blob) {
  return new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.readAsDataURL(blob);
  });
}

/** @param {any[]} hits with their ranks @param {string} about */
export async function saveHtml(hits, about) {
  const cards = [];
  for (const hit of hits) {
    const file = await cropFile(hit.key);
    const image = file ? `<img src="${await inline(file)}" alt="">` : "";
    const facts = [`${hit.rank}. ${hit.score.toFixed(3)}`, hit.key, `${t("time.camera", { camera: hit.camera })}, ${t(hit.modality)}`, timeText(hit.time), hit.tracklet, hit.person];
    cards.push(`<li>${image}${facts.filter(Boolean).map((fact) => `<div>${escape(fact)}</div>`).join("")}</li>`);
  }
  const policy = `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">`;
  const style = "<style>body{font:15px sans-serif;margin:2em}ol{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:12px}li{width:170px;border:1px solid #bbb;padding:8px;overflow-wrap:anywhere}img{height:160px}</style>";
  const head = `<!doctype html><html lang="en"><meta charset="utf-8"><title>${escape(t("export.title"))}</title>${policy}${style}`;
  save("matches.html", `${head}<h1>${escape(t("export.title"))}</h1><p>${escape(t("export.warning"))}</p><p>${escape(about)}</p><ol>${cards.join("\n")}</ol></html>`, "text/html");
}
