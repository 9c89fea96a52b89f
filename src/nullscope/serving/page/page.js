"use strict";
// One image at a time to the server, several at once in flight; results in the order in which images came.

const AT_ONCE = 3;
const COLUMNS = ["file", "model", "answer", "score", "probability", "logit", "threshold", "caption", "refused"];
const $ = id => document.getElementById(id);
const rows = [];
const waiting = [];
let underWay = 0, done = 0, total = 0;
let models = {};

const made = (name, text = "", className = "") => {
  const element = document.createElement(name);
  element.textContent = text;
  if (className) element.className = className;
  return element;
};
const percent = share => `${(100 * share).toFixed(1)} %`;
const headers = () => $("key").value ? {Authorization: `Bearer ${$("key").value}`} : {};

// The one honest sentence beside every answer.
function meaning(score) {
  const model = models[score.model];
  if (!model) return "";
  if (!model.judges) return "No verdict: this detector has never seen a photograph, only rendered scenes.";
  if (model.rendered) return "This detector has never seen a photograph, only rendered scenes: of a photograph its answer says nothing.";
  const promise = model.false_alarms;
  if (!promise) return "It promises no rate of false alarms: nobody has set its threshold on photographs.";
  const range = `${percent(promise.low)} to ${percent(promise.high)}`;
  if (score.answer === "generated")
    return `Of real photographs like those it was tried on, ${range} get this answer too. Of other photographs it may be more.`;
  if (score.answer === "not sure") return "With a logit like this one it tells neither kind of image from the other.";
  return "Images of generators that it was not trained on often get this answer too.";
}

function shownScore(score, file) {
  const box = made("div");
  box.append(made("h4", score.model));
  if (score.refused) {
    box.append(made("p", `Refused: ${score.refused}`, "refused"));
    return box;
  }
  const answer = score.answer ?? "no verdict";
  box.append(made("p", answer, `answer ${answer === "not sure" ? "unsure" : answer}`));
  const meter = made("meter", percent(score.score));
  Object.assign(meter, {min: 0, max: 1, value: score.score});
  meter.setAttribute("aria-label", `score of ${score.model}`);
  if (score.caption) box.append(made("p", `Caption that it reads beside the image: ${score.caption}`, "fact"));
  box.append(meter, made("p", `score ${score.score.toFixed(3)}, logit ${score.logit.toFixed(2)}`, "fact"), made("p", meaning(score), "fact"));
  const button = made("button", "Which parts spoke for it?");
  button.type = "button";
  button.addEventListener("click", () => explain(score.model, file, button));
  box.append(button);
  return box;
}

async function asked(path, file) {
  const form = new FormData();
  form.append("files", file, file.name || "pasted image");
  for (;;) {
    const answer = await fetch(path, {method: "POST", body: form, headers: headers()});
    if (answer.status === 429) {
      await new Promise(later => setTimeout(later, 1000 * Number(answer.headers.get("Retry-After") ?? 1)));
      continue;
    }
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error ?? `the server answered ${answer.status}`);
    return found;
  }
}

async function explain(model, file, button) {
  button.disabled = true;
  button.textContent = "Blanking one part after the other ...";
  try {
    const found = await asked(`/v1/explain?model=${encodeURIComponent(model)}`, file);
    button.replaceWith(await drawn(found));
  } catch (error) {
    button.replaceWith(made("p", `No explanation: ${error.message}`, "refused"));
  }
}

// The picture that the detector reads, with a frame around each part: the thicker, the more it spoke for "generated".
async function drawn(found) {
  const picture = new Image();
  picture.src = found.picture;
  await picture.decode();
  const zoom = Math.max(1, Math.round(448 / Math.max(picture.width, picture.height)));
  const canvas = made("canvas"), [width, height] = [zoom * picture.width, zoom * picture.height];
  Object.assign(canvas, {width, height});
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, 0, 0, width, height);
  const most = Math.max(...found.changes.map(Math.abs)) || 1;
  const [w, h] = [width / found.columns, height / found.rows];
  found.changes.forEach((change, at) => {
    const [x, y] = [w * (at % found.columns), h * Math.floor(at / found.columns)];
    const thick = Math.round(Math.min(w, h) / 4 * Math.abs(change) / most);
    if (!thick) return;
    context.lineWidth = thick;
    context.strokeStyle = change > 0 ? "#e03c00" : "#007a4d";
    context.strokeRect(x + thick / 2, y + thick / 2, w - thick, h - thick);
  });
  const order = found.changes.map((change, at) => [change, at]).sort((a, b) => b[0] - a[0]);
  const named = order.slice(0, 3).filter(([change]) => change > 0)
    .map(([change, at]) => `row ${Math.floor(at / found.columns) + 1}, column ${at % found.columns + 1} (${change.toFixed(2)})`);
  const words = named.length ? `Most for "generated": ${named.join("; ")}.` : `No part alone spoke for "generated".`;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `What ${found.model} reads of the image, in ${found.rows} by ${found.columns} parts. ${words}`);
  const figure = made("figure");
  figure.append(canvas, made("figcaption", `${words} Each part was blanked in turn, and the logit fell (red frame) or rose (green); the ` +
    "thicker, the more. It shows what moved the score, not what is wrong with the image.", "fact"));
  return figure;
}

async function judged(file, item) {
  const scores = item.querySelector(".scores");
  try {
    const found = (await asked("/v1/score", file)).files[0];
    scores.replaceChildren(...found.scores.map(score => shownScore(score, file)));
    for (const claim of found.claims) scores.before(made("p", `The file claims (anybody can write this): ${claim}`, "fact"));
    rows.push(...found.scores.map(score => ({file: file.name || "pasted image", ...score})));
  } catch (error) {
    scores.replaceChildren(made("p", `No scores: ${error.message}`, "refused"));
    rows.push({file: file.name || "pasted image", refused: error.message});
  }
}

function next() {
  while (underWay < AT_ONCE && waiting.length) {
    underWay += 1;
    const [file, item] = waiting.shift();
    judged(file, item).finally(() => {
      underWay -= 1;
      done += 1;
      told();
      next();
    });
  }
}

function told() {
  $("state").textContent = done < total ? `${done} of ${total} images scored.` : total === 1 ? "1 image scored." : `All ${total} images scored.`;
  $("csv").disabled = $("clear").disabled = !total || done < total;
}

function take(files) {
  for (const file of files) {
    const item = made("li"), right = made("div"), picture = made("img", "", "shown"), scores = made("div", "", "scores");
    picture.alt = "";
    picture.src = URL.createObjectURL(file);
    picture.addEventListener("error", () => picture.remove()); // a format that the browser does not know
    scores.append(made("p", "Waiting ...", "fact"));
    right.append(made("h3", file.name || "pasted image"), scores);
    item.append(picture, right);
    $("results").append(item);
    waiting.push([file, item]);
    total += 1;
  }
  told();
  next();
}

function quoted(value) {
  const text = value === null || value === undefined ? "" : String(value);
  const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text; // or a spreadsheet runs a file's name
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function download() {
  const lines = [COLUMNS, ...rows.map(row => COLUMNS.map(name => row[name]))].map(cells => cells.map(quoted).join(","));
  const link = made("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\r\n") + "\r\n"], {type: "text/csv"}));
  link.download = "nullscope.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}

function clear() {
  $("results").replaceChildren();
  rows.length = 0;
  done = total = 0;
  told();
  $("state").textContent = "No image yet.";
}

async function described() {
  const found = await (await fetch("/v1/models")).json();
  models = Object.fromEntries(found.map(model => [model.model, model]));
  $("models").replaceChildren(...found.map(model => {
    const promise = model.false_alarms;
    const rate = promise ? `threshold for ${percent(promise.promised)} false alarms, set on ${promise.reals} reals` : "the threshold of training";
    return made("li", `${model.model}: ${model.trained_on}; ${model.judges ? rate : "gives scores and no verdicts"}.`);
  }));
}

const drop = $("drop");
drop.addEventListener("dragover", event => { event.preventDefault(); drop.classList.add("over"); });
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
addEventListener("dragover", event => event.preventDefault());
addEventListener("drop", event => { event.preventDefault(); drop.classList.remove("over"); take(event.dataTransfer.files); });
addEventListener("paste", event => { if (event.clipboardData.files.length) take(event.clipboardData.files); });
$("files").addEventListener("change", event => { take(event.target.files); event.target.value = ""; });
$("csv").addEventListener("click", download);
$("clear").addEventListener("click", clear);
described().catch(() => { $("state").textContent = "The server does not answer."; });
