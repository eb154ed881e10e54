// The image that is searched for: dropped, pasted, chosen, or a frame of a video; with a box around the person.
import { t } from "./texts.js";

const canvas = /** @type {HTMLCanvasElement} */ (document.getElementById("canvas"));
const video = /** @type {HTMLVideoElement} */ (document.getElementById("video"));
const figure = document.getElementById("picture");
const drop = document.getElementById("drop");
const file = /** @type {HTMLInputElement} */ (document.getElementById("file"));
const pen = canvas.getContext("2d");
const LARGEST = 2048; // pixels of the longer side that are sent

/** @type {ImageBitmap | null} */ let image = null;
/** @type {{left: number, top: number, width: number, height: number} | null} */ let box = null;
/** @type {{x: number, y: number} | null} */ let start = null;
let listener = () => {};

/** Listen to all ways in which an image comes. @param {(message: string) => void} complain @param {() => void} changed */
export function watchPicture(complain, changed) {
  listener = changed;
  const take = (given) => load(given).catch(() => complain(t("fail.image")));
  file.addEventListener("change", () => file.files[0] && take(file.files[0]));
  for (const type of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(type, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", type === "dragover");
    });
  }
  drop.addEventListener("drop", (event) => event.dataTransfer.files[0] && take(event.dataTransfer.files[0]));
  document.addEventListener("paste", (event) => {
    const given = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
    if (given) take(given);
  });
  document.getElementById("frame").addEventListener("click", () => createImageBitmap(video).then(show));
  document.getElementById("whole").addEventListener("click", () => choose(null));
  document.getElementById("drop-image").addEventListener("click", clearPicture);
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    start = place(event);
    choose(null);
  });
  canvas.addEventListener("pointermove", (event) => start && choose(between(start, place(event))));
  canvas.addEventListener("pointerup", () => {
    start = null;
    if (box && (box.width < 4 || box.height < 4)) choose(null);
  });
  canvas.addEventListener("keydown", moveByKey);
}

/** @param {File} given */
async function load(given) {
  if (given.type.startsWith("video/")) {
    video.src = URL.createObjectURL(given);
    await new Promise((resolve, reject) => {
      video.onloadeddata = resolve;
      video.onerror = reject;
    });
    video.hidden = false;
    figure.hidden = false;
    document.getElementById("frame").hidden = false;
    show(await createImageBitmap(video));
    return;
  }
  video.hidden = true;
  document.getElementById("frame").hidden = true;
  show(await createImageBitmap(given));
}

/** @param {ImageBitmap} bitmap */
function show(bitmap) {
  image = bitmap;
  const scale = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  canvas.setAttribute("aria-label", t("query.image"));
  figure.hidden = false;
  choose(null);
}

/** Forget the image. */
export function clearPicture() {
  image = null;
  box = null;
  figure.hidden = true;
  if (video.src) URL.revokeObjectURL(video.src);
  video.removeAttribute("src");
  video.hidden = true;
  file.value = "";
  listener();
}

function choose(chosen) {
  box = chosen;
  draw();
  listener();
}

function draw() {
  if (!image) return;
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  if (!box) return;
  pen.fillStyle = "#0009";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.save();
  pen.beginPath();
  pen.rect(box.left, box.top, box.width, box.height);
  pen.clip();
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  pen.restore();
  pen.strokeStyle = "#f2b45c";
  pen.lineWidth = Math.max(1, canvas.width / 150);
  pen.strokeRect(box.left, box.top, box.width, box.height);
}

function place(event) {
  const frame = canvas.getBoundingClientRect();
  return {
    x: ((event.clientX - frame.left) / frame.width) * canvas.width,
    y: ((event.clientY - frame.top) / frame.height) * canvas.height,
  };
}

function between(one, other) {
  const left = Math.max(0, Math.min(one.x, other.x));
  const top = Math.max(0, Math.min(one.y, other.y));
  return {
    left,
    top,
    width: Math.min(canvas.width, Math.max(one.x, other.x)) - left,
    height: Math.min(canvas.height, Math.max(one.y, other.y)) - top,
  };
}

function moveByKey(event) {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const step = steps[event.key];
  if (!step || !image) return;
  event.preventDefault();
  const size = Math.max(1, canvas.width / 50);
  const old = box ?? { left: canvas.width / 4, top: canvas.height / 8, width: canvas.width / 2, height: (canvas.height * 3) / 4 };
  const changed = event.shiftKey
    ? { ...old, width: Math.max(4, old.width + step[0] * size), height: Math.max(4, old.height + step[1] * size) }
    : { ...old, left: old.left + step[0] * size, top: old.top + step[1] * size };
  changed.left = Math.min(Math.max(0, changed.left), canvas.width - 4);
  changed.top = Math.min(Math.max(0, changed.top), canvas.height - 4);
  changed.width = Math.min(changed.width, canvas.width - changed.left);
  changed.height = Math.min(changed.height, canvas.height - changed.top);
  choose(changed);
}

/** Only what is inside of the box leaves this machine. @returns {Promise<Blob | null>} */
export async function picture() {
  if (!image) return null;
  const part = box ?? { left: 0, top: 0, width: canvas.width, height: canvas.height };
  const scale = image.width / canvas.width;
  const cut = document.createElement("canvas");
  cut.width = Math.max(2, Math.round(part.width));
  cut.height = Math.max(2, Math.round(part.height));
  const brush = cut.getContext("2d");
  brush.drawImage(image, part.left * scale, part.top * scale, part.width * scale, part.height * scale, 0, 0, cut.width, cut.height);
  return new Promise((resolve) => cut.toBlob(resolve, "image/png"));
}

/** @returns {boolean} */
export function hasPicture() {
  return image !== null;
}
