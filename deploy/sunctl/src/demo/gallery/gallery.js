"use strict";
// Each picture is fetched once, by script, so that its response can be read: the server that gave it and
// what its Cache-Status says (RFC 9211: the last member is the server that answered).
const figures = [...document.querySelectorAll("figure[data-url]")];

function read(cacheStatus) {
  const members = (cacheStatus || "").split(",").map((member) => {
    const [server, ...parameters] = member.split(";").map((part) => part.trim());
    return { server: server.replaceAll('"', ""), hit: parameters.includes("hit") };
  });
  const answered = members[members.length - 1];
  if (!answered.server) return { server: "", outcome: "error", text: "no Cache-Status" };
  if (answered.hit) return { server: answered.server, outcome: "hit", text: "hit" };
  const holder = members.slice(0, -1).reverse().find((member) => member.hit);
  if (holder) return { server: answered.server, outcome: "via", text: `from ${holder.server}` };
  return { server: answered.server, outcome: "miss", text: "miss" };
}

async function show(figure) {
  const status = figure.querySelector(".status");
  try {
    const response = await fetch(figure.dataset.url, { mode: "cors", credentials: "omit", cache: "no-store" });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const seen = read(response.headers.get("Cache-Status"));
    const type = response.headers.get("Content-Type");
    // To the last byte: a body that breaks off is an error. What it shows may be decoded later.
    const body = new Blob([await response.arrayBuffer()], { type });
    figure.querySelector("img").src = URL.createObjectURL(body);
    figure.dataset.server = seen.server;
    figure.dataset.outcome = seen.outcome;
    status.textContent = seen.server ? `${seen.server} \u00b7 ${seen.text}` : seen.text;
  } catch (error) {
    figure.dataset.server = figure.dataset.linked;
    figure.dataset.outcome = "error";
    status.textContent = `${figure.dataset.linked} \u00b7 ${error.message}`;
  }
  tell();
}

function tell() {
  const servers = new Map();
  for (const { dataset } of figures) {
    if (!dataset.outcome) continue;
    const counts = servers.get(dataset.server) || { all: 0, hits: 0 };
    counts.all += 1;
    if (dataset.outcome === "hit") counts.hits += 1;
    servers.set(dataset.server, counts);
  }
  const lines = [...servers].sort().map(([server, { all, hits }]) => {
    const line = document.createElement("li");
    line.textContent = `${server || "unknown"}: ${all} picture${all === 1 ? "" : "s"}, ${hits} hit${hits === 1 ? "" : "s"}`;
    return line;
  });
  document.getElementById("tally").replaceChildren(...lines);
}

Promise.allSettled(figures.map(show)).then(() => { document.body.dataset.done = "true"; });
document.querySelector("select[name=client]")?.addEventListener("change", (event) => event.target.form.submit());
