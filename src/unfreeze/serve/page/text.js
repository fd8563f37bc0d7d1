// Small things that all parts of the page share. Text from outside (file names, class
// names, messages) goes into the page through textContent and attributes only.

export const byId = (id) => document.getElementById(id);

/** Make an element with properties, attributes (`aria-*`, `data-*`, `role`, `scope`) and children. */
export function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name.includes("-") || name === "role" || name === "scope") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Seconds as 1:02.3. */
export function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const minutes = Math.floor(tenths / 600);
  return `${minutes}:${((tenths % 600) / 10).toFixed(1).padStart(4, "0")}`;
}

/** Seconds in words, for people who hear the page. */
export function spoken(seconds) {
  return `${seconds.toFixed(1)} seconds`;
}

export const score = (value) => value.toFixed(2);

/** A table as CSV (RFC 4180): every text is quoted. */
export function csv(columns, rows) {
  const cell = (value) =>
    typeof value === "number" ? String(value) : `"${String(value).replaceAll('"', '""')}"`;
  return [columns, ...rows].map((row) => row.map(cell).join(",") + "\r\n").join("");
}

export function download(text, name, kind) {
  const url = URL.createObjectURL(new Blob([text], { type: kind }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
