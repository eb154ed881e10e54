// Requests to the server that the page came from. The token stays in this page's memory.
import { t } from "./texts.js";

let token = "";
const images = new Map(); // key -> promise of an image; the oldest go first
const MOST_IMAGES = 500;

/** An answer that is no success. */
export class Refused extends Error {
  /** @param {number} status @param {string} text */
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** @param {string} value */
export function useToken(value) {
  token = value.trim();
}

/** @param {string} path @param {RequestInit} [options] @returns {Promise<Response>} */
async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Refused(0, t("fail.offline"));
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({ detail: answer.statusText }));
  throw new Refused(answer.status, [told.detail, told.cure].filter(Boolean).join(" "));
}

/** What the gallery holds. */
export async function info() {
  return (await ask("/v1/info")).json();
}

/** @param {object} request @param {Blob | null} image */
export async function search(request, image) {
  const form = new FormData();
  form.append("request", new Blob([JSON.stringify(request)], { type: "application/json" }), "request.json");
  if (image) form.append("image", image, "image");
  return (await ask("/v1/search", { method: "POST", body: form })).json();
}

/** @param {string} key */
export async function row(key) {
  return (await ask(`/v1/rows/${encodeURIComponent(key)}`)).json();
}

/** @param {string} name */
export async function tracklet(name) {
  return (await ask(`/v1/tracklets/${encodeURIComponent(name)}`)).json();
}

/** A row's image, or null. @param {string} key @returns {Promise<{blob: Blob, url: string} | null>} */
function image(key) {
  if (!images.has(key)) {
    images.set(key, load(key));
    if (images.size > MOST_IMAGES) {
      const [oldest, found] = images.entries().next().value;
      images.delete(oldest);
      found.then((one) => one && URL.revokeObjectURL(one.url));
    }
  }
  return images.get(key);
}

async function load(key) {
  try {
    const blob = await (await ask(`/v1/crops/${encodeURIComponent(key)}`)).blob();
    return { blob, url: URL.createObjectURL(blob) };
  } catch (error) {
    if (error instanceof Refused) return null;
    throw error;
  }
}

/** Address of a row's image, or null. @param {string} key @returns {Promise<string | null>} */
export async function crop(key) {
  return (await image(key))?.url ?? null;
}

/** A row's image as a file, or null. @param {string} key @returns {Promise<Blob | null>} */
export async function cropFile(key) {
  return (await image(key))?.blob ?? null;
}
