// Draws the parts of a run's page, follows clicks on the heat map, and asks for fresh rows if the page is live.
const dark = matchMedia("(prefers-color-scheme: dark)");
const ink = () => (dark.matches ? "#c9d4df" : "#3a4653");
const rule = () => (dark.matches ? "#2b3541" : "#e3e7ec");
const views = {};
let picked = { site: null, step: null };

const config = () => ({
  background: "transparent", view: { stroke: null }, font: "system-ui, sans-serif",
  axis: { labelColor: ink(), titleColor: ink(), gridColor: rule(), domainColor: rule(), tickColor: rule() },
  legend: { labelColor: ink(), titleColor: ink() }, header: { labelColor: ink() }, title: { color: ink() },
});

const last = () => run.flow.reduce((most, row) => (row.decades === null || row.zero ? most : Math.max(most, row.step)), -1);
const ledger = () => {
  const step = picked.step ?? last();
  return run.flow.filter((row) => row.step === step && row.change !== null);
};
const site = () => picked.site ?? (run.sites[0] || {}).site;
const history = () => {
  const rows = [];
  for (const row of run.sites) {
    if (row.site !== site()) continue;
    for (const [statistic, value] of Object.entries(row))
      if (statistic !== "site" && statistic !== "step") rows.push({ step: row.step, statistic, value });
  }
  return rows;
};
const tables = () => ({
  steps: run.steps, looks: run.looks, findings: run.findings, flow: run.flow, moves: run.moves, profiles: run.profiles,
  ledger: ledger(), history: history(),
});
const needs = {
  curves: ["steps", "looks", "findings"], flow: ["flow"], ledger: ["ledger"], history: ["history"], moves: ["moves"],
  horizon: ["profiles"],
};

const known = (field) => [...run.steps, ...run.looks].some((row) => (row[field] ?? null) !== null);

// A chart as wide as there is room: on a narrow screen names of sites are cut.
function fit(chart, room) {
  const narrow = room < 700, margin = narrow ? 70 : 80;
  for (const one of chart.vconcat ?? [chart])
    if (one.width && !one.facet) one.width = Math.max(160, Math.min(one.width, room - margin));
  const y = chart.encoding?.y;
  if (narrow && y?.axis?.labelLimit) {
    y.axis.labelLimit = 90;
    chart.width = Math.max(140, room - 90 - margin);
  }
  const facet = chart.encoding?.facet;
  if (narrow && facet) {
    facet.columns = 1;
    chart.width = Math.max(160, room - margin);
  }
}

async function draw(part) {
  const rows = tables();
  const empty = !rows[needs[part][0]].length;
  document.getElementById(`${part}-part`).hidden = empty;
  if (empty) return;
  const chart = structuredClone(charts[part]);
  if (chart.vconcat) chart.vconcat = chart.vconcat.filter((one) => known(one.name));
  fit(chart, document.getElementById(part).clientWidth);
  chart.datasets = Object.fromEntries(needs[part].map((key) => [key, rows[key]]));
  chart.config = config();
  const { view } = await window.draw(`#${part}`, chart, { actions: false, renderer: "svg", ast: true });
  views[part] = view;
  if (part === "flow")
    view.addEventListener("click", (event, item) => {
      if (!item || !item.datum || item.datum.site === undefined) return;
      picked = { site: item.datum.site, step: item.datum.step };
      describe();
      draw("ledger");
      draw("history");
    });
}

function describe() {
  const steps = run.steps;
  const first = steps.find((row) => row.loss !== null), end = steps.findLast((row) => row.loss !== null);
  const text = [steps.length ? `steps ${steps[0].step} to ${steps[steps.length - 1].step}` : "no step yet"];
  if (first) text.push(`loss ${first.loss.toPrecision(4)} to ${end.loss.toPrecision(4)}`);
  if (run.seen) text.push(`${run.seen} looks`);
  const share = Number(run.facts.overhead);
  if (share > 0) text.push(`watch overhead ${(100 * share).toFixed(2)} %`);
  text.push(...run.ranks);
  if (picked.site) text.push(`${picked.site} at step ${picked.step}`);
  const verdict = document.getElementById("verdict");
  verdict.textContent = run.verdict.sentence;
  verdict.className = run.verdict.word;
  describeTimeline();
  document.getElementById("summary").textContent = text.join(" · ");
  document.querySelector("#history-part h2").textContent = `One site: ${site()}`;
  const list = document.getElementById("findings");
  list.replaceChildren(...(run.findings.length ? run.findings : [null]).map((found) => {
    const item = document.createElement("li");
    if (!found) { item.textContent = "Nothing wrong was seen."; return item; }
    const code = document.createElement("b");
    code.textContent = `${found.code} ${found.name}`;
    code.className = found.severity;
    item.append(code, ` step ${found.step}${found.last > found.step ? ` to ${found.last}` : ""}: ${found.cause}`);
    if (found.remedy) {
      const help = document.createElement("small");
      help.textContent = found.remedy;
      item.append(document.createElement("br"), help);
    }
    return item;
  }));
}

function describeTimeline() {
  document.getElementById("timeline-part").hidden = !run.timeline.length;
  document.getElementById("timeline").replaceChildren(...run.timeline.map((moment) => {
    const item = document.createElement("li");
    const [step, text] = ["span", "span"].map((name) => document.createElement(name));
    step.textContent = `step ${moment.step}`;
    text.textContent = moment.text;
    text.className = moment.severity;
    item.append(step, text);
    return item;
  }));
}

async function drawAll() {
  describe();
  for (const part of Object.keys(needs)) await draw(part);
  document.body.dataset.drawn = "yes";
}

async function refresh() {
  try {
    const fresh = await (await fetch("data.json")).json();
    const more = JSON.stringify(fresh.steps.at(-1)) !== JSON.stringify(run.steps.at(-1));
    Object.assign(run, fresh);
    if (more) await drawAll();
  } catch (error) { /* the training, or its server, has ended */ }
  setTimeout(refresh, 2000);
}

dark.addEventListener("change", drawAll);
await drawAll();
if (live) setTimeout(refresh, 2000);
