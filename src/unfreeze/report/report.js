// The page can be read without this: it opens the clips behind a cell in a window, and plays one sound at a time.
"use strict";
const dialog = document.getElementById("behind");
const cards = new Map();
for (const card of document.querySelectorAll("[data-cells]"))
  for (const cell of card.dataset.cells.split(" ")) cards.set(cell, [...(cards.get(cell) ?? []), card]);
let places = [];

function close() {
  // Back to where each card came from.
  for (const [card, mark] of places) mark.replaceWith(card);
  places = [];
}

function open(link) {
  close();
  const inside = dialog.querySelector(".cards");
  for (const card of cards.get(link.dataset.cell) ?? []) {
    const mark = document.createComment("");
    card.replaceWith(mark);
    places.push([card, mark]);
    inside.append(card);
  }
  dialog.querySelector("h2").textContent = link.dataset.title;
  const more = Number(link.dataset.count) - places.length;
  dialog.querySelector(".more").textContent = more > 0 ? `${more} more of them are in predictions.csv.` : "";
  dialog.showModal();
  dialog.scrollTop = 0;
}

if (dialog?.showModal) {
  dialog.addEventListener("close", close);
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-cell]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open(link);
  });
}

document.addEventListener("play", (event) => {
  for (const sound of document.querySelectorAll("audio")) if (sound !== event.target) sound.pause();
}, true);
