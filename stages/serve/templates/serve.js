"use strict";
const $ = (id) => document.getElementById(id);
const SHOWN = 6;
let photo = null, looked = null, heads = [], listed = "", asking = new AbortController(), camera = null, all = false;

const show = (id, on) => { $(id).hidden = !on; };
const percent = (p) => (p >= 0.9995 ? "100%" : p < 0.0005 ? "0%" : (100 * p).toFixed(1) + "%");

function say(text, mild = false) {
  $("notice").textContent = text;
  $("notice").classList.toggle("mild", mild);
  show("notice", text !== "");
}

function made(tag, words, kind) {
  const element = document.createElement(tag);
  element.textContent = words;
  if (kind) element.className = kind;
  return element;
}

async function answered(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("headstart does not answer: it was ended, or the network is gone.");
  }
  let told;
  try {
    told = await response.json();
  } catch {
    throw new Error("headstart is busy; try again in a moment.");
  }
  if (!response.ok) throw new Error(told.error);
  return told;
}

async function readHeads() {
  const told = await answered("/heads");
  if (JSON.stringify(told) === listed) return;  // a list that is open stays
  listed = JSON.stringify(told);
  heads = told.heads;
  const chosen = $("head").value;
  const options = heads.map((head) => {
    const option = new Option(head.name + (head.problem ? " – cannot answer" : head.score === null ? "" : "  " + head.score.toFixed(3)), head.name);
    option.disabled = head.problem !== null;
    return option;
  });
  $("head").replaceChildren(...options);
  $("head").value = heads.some((head) => head.name === chosen && !head.problem) ? chosen : told.default;
  $("head").disabled = false;
  $("metric").textContent = "and validation " + told.metric.replaceAll("_", " ");
  offer();
  if (told.warnings.length) say(told.warnings.join(" "), true);
}

// Accuracies that the validation images of a head can show.
function offer() {
  const head = heads.find((each) => each.name === $("head").value);
  const told = $("accuracy").dataset.set ? $("accuracy").value : $("main").dataset.accuracy;
  const known = Object.entries((head && head.thresholds) || {});
  if (told !== "" && !known.some(([accuracy]) => Number(accuracy) === Number(told))) known.push([told, 0]);
  known.sort(([a], [b]) => a - b);
  $("accuracy").replaceChildren(new Option("any", ""), ...known.map(([accuracy, threshold]) => {
    const option = new Option(percent(Number(accuracy)).replace(".0%", "%"), accuracy);
    option.disabled = threshold === null;
    return option;
  }));
  const found = [...$("accuracy").options].find((option) => !option.disabled && option.value !== "" && Number(option.value) === Number(told));
  $("accuracy").value = told !== "" && found ? found.value : "";
  $("accuracy").dataset.set = "1";
  $("accuracy").disabled = false;
}

async function ask(file, label) {
  if (file) { photo = file; all = false; }
  if (!photo) return;
  closeCamera();
  asking.abort();
  asking = new AbortController();
  const { signal } = asking, most = Number($("main").dataset.bytes);
  say("");
  if (photo.size > most) {
    forget();
    say("Expected a file of at most " + most / 1e6 + " MB, found " + (Math.ceil(photo.size / 1e5) / 10).toFixed(1) + " MB.");
    return;
  }
  show("busy", true);
  $("result").classList.add("waits");
  const query = new URLSearchParams({ details: "1", head: $("head").value });
  // Before the heads are known, the server's own holds.
  if ($("accuracy").dataset.set) query.set("min_accuracy", $("accuracy").value);
  if (label) query.set("class", label);
  try {
    const told = await answered("/predict?" + query, { method: "POST", body: photo, headers: { "Content-Type": "application/octet-stream" }, signal });
    if (signal.aborted) return;
    draw(told);
  } catch (error) {
    if (signal.aborted) return;
    forget();
    say((photo.name ? photo.name + ": " : "") + error.message);
  }
  show("busy", false);
  $("result").classList.remove("waits");
}

function forget() {
  show("result", false);
  show("busy", false);
}

function draw(told) {
  looked = told;
  show("result", true);  // first, as a screen reader tells changes of what is shown
  const p = told.probabilities[told.most_probable];
  $("asked").textContent = "Head " + told.head + " says";
  $("label").textContent = told.sure ? told.label : "None of these";
  $("label").className = told.sure ? "" : "unsure";
  $("doubt").textContent = told.sure
    ? (told.min_accuracy === null ? "" : "It answers from a probability of " + percent(told.threshold) + " on.")
    : "The most probable is " + told.most_probable + " with " + percent(p) + ", and it answers from " + percent(told.threshold) + " on.";
  drawClasses();
  $("picture").src = told.picture;
  if (told.map.image) $("map").src = told.map.image; else $("map").removeAttribute("src");
  $("map").alt = "What in the photo speaks for " + told.map.class;
  $("show-map").disabled = !told.map.image;
  see(Boolean(told.map.image));
  $("map-says").textContent = told.map.why_not
    ? told.map.why_not + "."
    : "The stronger the colour, the more the place speaks for " + told.map.class + " (" + told.map.method + "). Choose another class to see what speaks for that.";
  $("like-says").textContent = told.why_none && told.why_none + "." || (told.same_file
    ? "This file is itself among your photos: " + told.same_file.path + " (" + told.same_file.label + ", " + told.same_file.split + ")." : "");
  $("nearest").replaceChildren(...told.nearest.map(drawNear));
  if (told.warnings.length) say(told.warnings.join(" "), true);
}

function drawClasses() {
  // Sorted here: whole numbers come first in an object, whatever their place in the answer.
  const told = looked, ranked = Object.entries(told.probabilities).sort(([, a], [, b]) => b - a);
  const focused = $("classes").contains(document.activeElement) ? document.activeElement.dataset.name : null;
  $("classes").replaceChildren(...(all ? ranked : ranked.slice(0, SHOWN)).map(([name, p], i) => {
    const item = document.createElement("li"), button = document.createElement("button"), bar = document.createElement("progress");
    button.type = "button";
    button.title = "Show what speaks for " + name;
    button.dataset.name = name;
    button.setAttribute("aria-pressed", String(name === told.map.class));
    button.className = i ? "" : told.sure ? "first" : "first unsure";
    bar.max = 1;
    bar.value = p;
    bar.setAttribute("aria-hidden", "true");
    button.append(made("span", name, "name"), made("span", percent(p), "p"), bar);
    button.addEventListener("click", () => ask(null, name));
    item.append(button);
    return item;
  }));
  for (const button of $("classes").querySelectorAll("button")) if (button.dataset.name === focused) button.focus();
  show("more", ranked.length > SHOWN && !all);
  $("more").textContent = "All " + ranked.length + " classes";
}

function drawNear(near) {
  const item = document.createElement("li"), verdict = made("div", "", "verdict");
  if (near.image) {
    const image = document.createElement("img");
    image.src = near.image;
    image.alt = near.path;
    item.append(image);
  } else item.append(made("span", near.why_not, "placeholder"));
  verdict.append(made("b", near.label), made("span", near.similarity.toFixed(2)));
  item.append(verdict, made("p", near.path, "path"));
  return item;
}

function see(map) {
  document.querySelector(".seen").classList.toggle("photo", !map);
  $("show-map").setAttribute("aria-pressed", String(map));
  $("show-photo").setAttribute("aria-pressed", String(!map));
}

// The camera of a computer; a phone's own camera is better, and needs no https.
async function openCamera() {
  const isPhone = matchMedia("(pointer: coarse)").matches;
  if (isPhone || !navigator.mediaDevices) return $("capture").click();
  let opened;
  try {
    opened = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } });
  } catch (error) {
    return say("The camera cannot be used: " + error.message + ".");
  }
  closeCamera();  // here, as another may have been opened meanwhile
  camera = opened;
  $("shoot").disabled = true;  // until there is a picture
  say("");
  $("video").srcObject = camera;
  show("camera", true);
  await $("video").play();
}

function closeCamera() {
  if (camera) camera.getTracks().forEach((track) => track.stop());
  camera = null;
  show("camera", false);
}

function shoot() {
  const canvas = document.createElement("canvas"), video = $("video");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => ask(blob), "image/jpeg", 0.95);
}

async function paste() {
  try {
    for (const item of await navigator.clipboard.read()) {
      const kind = item.types.find((type) => type.startsWith("image/"));
      if (kind) return ask(await item.getType(kind));
    }
    say("There is no image in the clipboard. Copy one, and press Ctrl-V or Paste.");
  } catch {
    say("The browser does not let a button paste; press Ctrl-V.");
  }
}

function first(list) {
  const files = [...list];
  return files.find((file) => file.type.startsWith("image/")) || files[0];
}

$("choose").addEventListener("click", () => $("file").click());
$("take").addEventListener("click", openCamera);
$("paste").addEventListener("click", paste);
$("shoot").addEventListener("click", shoot);
$("video").addEventListener("loadeddata", () => { $("shoot").disabled = false; });
$("stop").addEventListener("click", closeCamera);
$("show-photo").addEventListener("click", () => see(false));
$("show-map").addEventListener("click", () => see(true));
$("more").addEventListener("click", () => { all = true; drawClasses(); });
$("head").addEventListener("change", () => { offer(); ask(); });
$("accuracy").addEventListener("change", () => ask());
for (const id of ["file", "capture"]) {
  $(id).addEventListener("change", () => { if ($(id).files.length) ask($(id).files[0]); $(id).value = ""; });
}
document.addEventListener("paste", (event) => {
  const file = first(event.clipboardData.files);
  if (file) ask(file); else say("There is no image in the clipboard.");
});
document.addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const file = first(event.dataTransfer.files);
  if (file) ask(file); else say("That is no file. Save the picture first, and drop the file.");
});
$("paste").hidden = !(navigator.clipboard && navigator.clipboard.read);
// Heads may have been trained since the page was opened.
addEventListener("focus", () => readHeads().catch(() => {}));
readHeads().catch((error) => say(error.message));
