"use strict";
// Pictures come as JPEG with their boxes in a header, so that a box always belongs to its picture.

const SPAN_SECS = 60;
const $ = (id) => document.getElementById(id);
const colour = (hue) => (hue === null || hue === undefined ? "#969eaa" : `hsl(${hue.toFixed(1)} 78% 62%)`);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

let state = null;
const tiles = [];

function clock(secs) {
  if (secs > 1e8) return new Date(secs * 1000).toLocaleTimeString();
  const whole = Math.max(0, Math.floor(secs));
  return `${String(Math.floor(whole / 60)).padStart(2, "0")}:${String(whole % 60).padStart(2, "0")}`;
}

function ago(secs) {
  if (secs < 2) return "now";
  if (secs < 90) return `${Math.round(secs)} s ago`;
  if (secs < 5400) return `${Math.round(secs / 60)} min ago`;
  return `${Math.round(secs / 3600)} h ago`;
}

function element(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

// ---- cameras

const GAP = 10;
const stripTall = (rows) => rows * (rows > 6 ? 16 : 24) + 66;

// The number of columns that gives the largest pictures in the room there is. Where cameras leave a place free in the
// last row, the strip moves there and the wall gets its room.
function arrange() {
  const wall = $("wall");
  const strip = $("strip").parentElement;
  const main = document.querySelector("main");
  main.append(strip);
  main.classList.remove("inside");
  const count = tiles.length;
  const wide = wall.clientWidth;
  const tall = main.clientHeight - 24;
  let best = { columns: 1, height: 0, free: 0 };
  for (let columns = 1; columns <= count; columns += 1) {
    const rows = Math.ceil(count / columns);
    const free = rows * columns - count;
    const room = free ? tall : tall - stripTall(count) - 12;
    const height = Math.min((room - (rows - 1) * GAP) / rows, (wide - (columns - 1) * GAP) / columns / (16 / 9));
    if (height > best.height + 1) best = { columns, height, free };
  }
  wall.style.gridTemplateColumns = `repeat(${best.columns}, minmax(0, 1fr))`;
  if (best.free && window.innerWidth > 1000) {
    strip.style.gridColumn = `span ${best.free}`;
    wall.append(strip);
    main.classList.add("inside");
  } else {
    strip.style.gridColumn = "";
  }
}

function layWall(cameras) {
  // Cameras come and go while the page is open.
  const same = tiles.length === cameras.length && cameras.every((c, i) => tiles[i].index === c.index);
  if (same) return;
  const wall = $("wall");
  wall.replaceChildren();
  for (const tile of tiles) if (tile.bitmap) tile.bitmap.close();
  tiles.length = 0;
  for (const camera of cameras) {
    const box = element("div", "tile dark");
    const canvas = element("canvas");
    const cap = element("div", "cap");
    const dot = element("span", "dot");
    const detail = element("span", "detail");
    const fps = element("span", "fps");
    cap.append(dot, element("b", "", camera.name), detail, fps);
    box.append(canvas, cap);
    wall.append(box);
    tiles.push({ index: camera.index, box, canvas, dot, detail, fps, sequence: null, bitmap: null, boxes: [] });
  }
  arrange();
}

window.addEventListener("resize", () => {
  if (!state) return;
  arrange();
  tiles.forEach(drawTile);
  drawStrip();
});

function drawTile(tile) {
  const { canvas, bitmap, boxes } = tile;
  if (!bitmap) return;
  const scale = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * scale);
  const height = Math.round(canvas.clientHeight * scale);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const g = canvas.getContext("2d", { alpha: false });
  const k = Math.min(width / bitmap.width, height / bitmap.height);
  const x0 = (width - bitmap.width * k) / 2;
  const y0 = (height - bitmap.height * k) / 2;
  g.fillStyle = "#0b0d11";
  g.fillRect(0, 0, width, height);
  g.imageSmoothingQuality = "high";
  g.drawImage(bitmap, x0, y0, bitmap.width * k, bitmap.height * k);
  g.lineJoin = "round";
  g.font = `600 ${Math.round(11.5 * scale)}px ui-monospace, "DejaVu Sans Mono", Menlo, monospace`;
  g.textBaseline = "middle";
  for (const box of boxes) {
    const [l, t, r, b] = box.b.map((v, i) => (i % 2 ? y0 : x0) + v * k);
    const ink = colour(box.h);
    g.strokeStyle = "rgba(8, 10, 14, .55)";
    g.lineWidth = 4 * scale;
    g.setLineDash([]);
    g.strokeRect(l, t, r - l, b - t);
    g.strokeStyle = ink;
    g.lineWidth = 2 * scale;
    if (!box.n) g.setLineDash([5 * scale, 4 * scale]);
    g.strokeRect(l, t, r - l, b - t);
    g.setLineDash([]);
    if (!box.n) continue;
    const text = box.c === null ? box.n : `${box.n} ${box.c.toFixed(2).replace(/^0/, "")}`;
    const tall = 18 * scale;
    const wide = g.measureText(text).width + 10 * scale;
    const left = Math.max(x0, Math.min(l - scale, x0 + bitmap.width * k - wide));
    const top = t - tall >= y0 ? t - tall : t;
    g.fillStyle = ink;
    g.beginPath();
    g.roundRect(left, top, wide, tall, 3 * scale);
    g.fill();
    g.fillStyle = "#0c0e12";
    g.fillText(text, left + 5 * scale, top + tall / 2 + scale * .5);
  }
}

let turn = 0;
// A browser opens six connections to a server: four fetch pictures, whichever camera is next.
async function fetchPictures() {
  for (;;) {
    const tile = tiles.length ? tiles[turn++ % tiles.length] : null;
    if (!tile || tile.busy || document.hidden) {
      await sleep(tile && tile.busy ? 15 : 200);
      continue;
    }
    tile.busy = true;
    const began = performance.now();
    try {
      const after = tile.sequence === null ? "" : `?after=${tile.sequence}`;
      const answer = await fetch(`/camera/${tile.index}.jpg${after}`);
      if (answer.status === 200) {
        const boxes = JSON.parse(answer.headers.get("x-boxes") || "[]");
        const bitmap = await createImageBitmap(await answer.blob());
        if (tile.bitmap) tile.bitmap.close();
        tile.sequence = answer.headers.get("x-sequence");
        tile.bitmap = bitmap;
        tile.boxes = boxes;
        drawTile(tile);
      } else if (answer.status === 401 || answer.status === 403) {
        location.reload();
        return;
      } else {
        await sleep(250);
      }
    } catch {
      await sleep(1000);
    }
    // At most about 15 pictures a second: an edge box has better things to do.
    await sleep(Math.max(5, 65 - (performance.now() - began)));
    tile.busy = false;
  }
}

function showCameras() {
  for (const tile of tiles) {
    const camera = state.cameras.find((c) => c.index === tile.index);
    if (!camera) continue;
    const live = camera.state === "live";
    tile.dot.className = `dot ${live ? "live" : camera.state === "ended" ? "" : camera.state === "connecting" ? "warn" : "bad"}`;
    tile.detail.textContent = live ? "" : camera.detail || camera.state;
    tile.fps.textContent = live ? `${camera.fps.toFixed(1)} fps` : "";
    tile.box.classList.toggle("dark", !live && camera.state !== "ended");
  }
}

// ---- people

const cards = new Map();

function showPeople() {
  const list = $("people");
  const wanted = state.identities;
  $("nobody").hidden = wanted.length > 0;
  const ids = new Set(wanted.map((p) => p.id));
  for (const [id, card] of cards) {
    if (!ids.has(id)) {
      card.item.remove();
      cards.delete(id);
    }
  }
  wanted.forEach((person, place) => {
    let card = cards.get(person.id);
    if (!card) {
      const item = element("li", "person");
      const who = element("div", "who");
      const chip = element("span", "chip", person.name);
      const said = element("span", "said");
      const score = element("span", "score");
      const seen = element("div", "seen");
      chip.title = person.id;
      score.title = "similarity when recognised";
      who.append(chip, said, score);
      item.append(who, seen);
      card = { item, chip, said, score, seen, key: "" };
      cards.set(person.id, card);
    }
    card.chip.style.background = colour(person.hue);
    const latest = person.visits.reduce((a, b) => (b.last > a.last ? b : a));
    const here = state.now - latest.last < 2;
    const name = (index) => state.camera_names[index] || "?";
    card.said.textContent = here ? `in ${name(latest.camera)}` : `${name(latest.camera)}, ${ago(state.now - latest.last)}`;
    card.said.classList.toggle("here", here);
    const matched = [...person.visits].reverse().find((v) => v.state === "matched" && v.score !== null);
    card.score.textContent = matched ? matched.score.toFixed(2).replace(/^0/, "") : "new";
    // One picture per camera, in the order of the first visit.
    const byCamera = new Map();
    for (const visit of person.visits) {
      const known = byCamera.get(visit.camera) || { first: visit.first, last: visit.last, crop: "" };
      known.last = Math.max(known.last, visit.last);
      if (visit.crop) known.crop = `${visit.tracklet}`;
      byCamera.set(visit.camera, known);
    }
    const key = JSON.stringify([...byCamera].map(([camera, v]) => [camera, v.crop]));
    if (key !== card.key) {
      card.key = key;
      card.seen.replaceChildren(...[...byCamera].map(([camera, v]) => {
        const figure = element("figure");
        const pic = element("div", "pic");
        if (v.crop) {
          const img = element("img");
          img.alt = `${person.name} in ${name(camera)}`;
          img.src = `/crop/${person.id}.jpg?camera=${camera}&t=${v.crop}`;
          pic.append(img);
        }
        const caption = element("figcaption");
        caption.append(element("b", "", name(camera)), element("span", "when"));
        figure.append(pic, caption);
        return figure;
      }));
    }
    [...byCamera.values()].forEach((v, i) => {
      const figure = card.seen.children[i];
      figure.classList.toggle("here", state.now - v.last < 2);
      figure.querySelector(".when").textContent = clock(v.first);
    });
    if (list.children[place] !== card.item) list.insertBefore(card.item, list.children[place] || null);
  });
}

// ---- who was where

function drawStrip() {
  const canvas = $("strip");
  const rows = state.cameras.length;
  const inside = document.querySelector("main").classList.contains("inside");
  const room = inside ? (canvas.parentElement.clientHeight - 66) / rows : rows > 6 ? 16 : 24;
  const rowTall = Math.max(12, room);
  canvas.style.height = `${rows * rowTall + 24}px`;
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * scale);
  canvas.height = Math.round(canvas.clientHeight * scale);
  const g = canvas.getContext("2d");
  g.scale(scale, scale);
  const wide = canvas.clientWidth;
  g.font = '12px system-ui, "DejaVu Sans", sans-serif';
  const label = Math.min(140, Math.max(...state.cameras.map((c) => g.measureText(c.name).width)) + 24);
  const end = state.now;
  const start = end - SPAN_SECS;
  const x = (time) => label + ((time - start) / SPAN_SECS) * (wide - label - 12);
  g.textBaseline = "middle";
  const bottom = rows * rowTall + 2;
  g.strokeStyle = "#1d222b";
  g.fillStyle = "#5a6374";
  g.textAlign = "center";
  const every = wide - label > 500 ? 10 : 20;
  for (let tick = Math.ceil(start / every) * every; tick <= end; tick += every) {
    if (tick < 0) continue;
    g.beginPath();
    g.moveTo(x(tick), 0);
    g.lineTo(x(tick), bottom);
    g.stroke();
    g.fillText(clock(tick), Math.min(x(tick), wide - 24), bottom + 11);
  }
  g.textAlign = "left";
  state.cameras.forEach((camera, row) => {
    g.fillStyle = "#8b94a5";
    g.fillText(camera.name, 12, row * rowTall + rowTall / 2, label - 16);
    if (row) {
      g.beginPath();
      g.moveTo(12, row * rowTall);
      g.lineTo(wide - 12, row * rowTall);
      g.stroke();
    }
  });
  // People who are in one view together lie in lanes, first come first.
  const rowOf = new Map(state.cameras.map((c, row) => [c.index, row]));
  const visits = state.identities.flatMap((person) => person.visits
    .filter((visit) => rowOf.has(visit.camera))
    .map((visit) => ({ ...visit, person, row: rowOf.get(visit.camera) })));
  visits.sort((a, b) => a.first - b.first);
  const lanes = state.cameras.map(() => []);
  const shown = visits.filter((v) => v.last >= start);
  for (const visit of shown) {
    const ends = lanes[visit.row];
    const free = ends.findIndex((lastEnd) => lastEnd < visit.first);
    visit.lane = free < 0 ? ends.length : free;
    ends[visit.lane] = visit.last;
  }
  for (const visit of shown) {
    const space = (rowTall - 5) / lanes[visit.row].length;
    const tall = Math.max(2, Math.min(space - 2, 24));
    const top = visit.row * rowTall + 3 + visit.lane * space + (space - tall) / 2;
    const left = Math.max(x(visit.first), label);
    const right = Math.max(x(visit.last), left + 3);
    g.fillStyle = colour(visit.person.hue);
    g.beginPath();
    g.roundRect(left, top, right - left, tall, Math.min(3, tall / 2));
    g.fill();
    if (right - left > 38 && tall > 11) {
      g.font = '600 11px ui-monospace, "DejaVu Sans Mono", monospace';
      g.fillStyle = "#0c0e12";
      g.fillText(visit.person.name, left + 5, top + tall / 2 + .5);
    }
  }
  $("strip-note").textContent = `last ${SPAN_SECS} s`;
}

// ---- state

function show() {
  layWall(state.cameras);
  showCameras();
  showPeople();
  drawStrip();
  const live = state.cameras.filter((c) => c.state === "live");
  const across = state.identities.filter((p) => new Set(p.visits.map((v) => v.camera)).size > 1).length;
  $("live").textContent = `${live.length}/${state.cameras.length}`;
  $("in-view").textContent = live.reduce((sum, c) => sum + c.people, 0);
  $("known").textContent = state.known;
  $("across").textContent = across;
  $("fps").textContent = live.reduce((sum, c) => sum + c.fps, 0).toFixed(0);
  $("now").textContent = clock(state.now);
  const problems = state.problems || [];
  $("problems").hidden = problems.length === 0;
  $("problems").textContent = problems.join("  \u00b7  ");
  $("people-note").textContent = state.corrections ? `${state.corrections} corrected` : "";
  $("facts").replaceChildren(...Object.entries(state.facts).map(([name, value]) => {
    const span = element("span");
    span.append(element("b", "", `${name} `), document.createTextNode(value));
    return span;
  }));
}

let asking = false;
async function refresh() {
  if (asking) return;
  asking = true;
  try {
    const answer = await fetch("/api/state");
    if (answer.ok) {
      state = await answer.json();
      show();
      $("link").className = "dot live";
      $("link").title = "connected";
    } else if (answer.status === 401) {
      location.reload();
    }
  } catch {
    $("link").className = "dot bad";
    $("link").title = "no connection to the server";
  }
  asking = false;
}

new EventSource("/api/events").onmessage = refresh;
setInterval(() => document.hidden || refresh(), 700);
refresh();
for (let i = 0; i < 4; i += 1) fetchPictures();
