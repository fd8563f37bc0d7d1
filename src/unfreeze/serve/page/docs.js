// Shows the OpenAPI description as a page: addresses, parameters, answers, data.

import { byId, make } from "./text.js";

/** The type of a value in words, with its range. */
function kind(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.type === "array") return `list of ${kind(schema.items)}`;
  if (schema.additionalProperties) return `object of ${kind(schema.additionalProperties)}`;
  const least = schema.minimum ?? (schema.exclusiveMinimum !== undefined ? `above ${schema.exclusiveMinimum}` : undefined);
  const range = least !== undefined && schema.maximum !== undefined ? `, ${least} to ${schema.maximum}` : "";
  return (schema.format === "binary" ? "file" : schema.type ?? "any") + range;
}

/** A parameter that may be null may also be left out: that is what a caller does. */
const parameterKind = (schema) => kind(schema).replace(/ or null$/, ", or left out");

/** Text in which `...` is code. */
function prose(text) {
  return text.split("`").map((piece, i) => (i % 2 ? make("code", { textContent: piece }) : piece));
}

function table(columns, rows) {
  const head = make("tr", {}, ...columns.map((text) => make("th", { scope: "col", textContent: text })));
  const body = rows.map((row) => make("tr", {}, ...row.map((text, i) => {
    const cell = make("td");
    cell.append(...(i ? prose(text) : [make("code", { textContent: text })]));
    return cell;
  })));
  return make("div", { className: "table" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

function operation(verb, path, { summary, description, parameters = [], requestBody, responses }) {
  const parts = [make("h2", {}, make("span", { className: "verb", textContent: verb.toUpperCase() }), ` ${path} `), make("p", { textContent: description ?? summary })];
  const fields = requestBody?.content["multipart/form-data"]?.schema.properties ?? {};
  const takes = [
    ...Object.entries(fields).map(([name, one]) => [name, "form", kind(one), one.description ?? ""]),
    ...parameters.map((one) => [one.name, one.in, parameterKind(one.schema), one.description ?? ""]),
  ];
  if (takes.length) parts.push(make("h3", { textContent: "Takes" }), table(["Name", "In", "Type", "What"], takes));
  const answers = Object.entries(responses).map(([status, one]) => [status, kind(one.content?.["application/json"]?.schema), one.description]);
  parts.push(make("h3", { textContent: "Answers" }), table(["Status", "Body", "When"], answers));
  return make("section", {}, ...parts);
}

function schema(name, { description, properties = {} }) {
  const rows = Object.entries(properties).map(([key, one]) => [key, kind(one), one.description ?? ""]);
  return make("section", {}, make("h2", { textContent: name }), make("p", { textContent: description ?? "" }), table(["Name", "Type", "What"], rows));
}

const base = new URL("./", location.href).href;
byId("example").textContent = `curl -F file=@SOUND.wav "${base}predict"`;
const api = await (await fetch("openapi.json")).json();
for (const [path, verbs] of Object.entries(api.paths)) {
  for (const [verb, one] of Object.entries(verbs)) byId("operations").append(operation(verb, path, one));
}
// FastAPI describes its own form of errors, too, which this server does not send.
const ours = Object.entries(api.components.schemas).filter(([name]) => !["HTTPValidationError", "ValidationError"].includes(name));
for (const [name, one] of ours) byId("schemas").append(schema(name, one));
