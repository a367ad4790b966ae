"use strict";
(() => {
  const trace = JSON.parse(document.getElementById("data").textContent);
  const list = document.getElementById("tokens");
  const chips = [...list.querySelectorAll("[role=option]")];
  const rows = [...document.querySelectorAll("#steps tbody tr")];
  const cursors = [...document.querySelectorAll(".cursor")];
  let selected = -1;

  // What Python writes as null is −∞, and "" is not known.
  const number = (x) => {
    if (x === "") return "";
    if (x === null) return "−∞";
    if (Math.abs(x) < 5e-4) return "0";
    return (Number.isInteger(x) ? String(x) : x.toFixed(3)).replace("-", "−");
  };

  const short = (x) => String(Number(x.toPrecision(6))).replace("-", "−");

  const titled = (factor) => factor.name + (factor.power === 1 ? "" : ", to the power of " + short(factor.power));

  const percentage = (x) => {
    if (x === "") return "";
    if (x === null) return "0";
    return x > -7.6 ? (100 * Math.exp(x)).toFixed(1) : power(x, 2);
  };

  const percent = (x) => (x === "" ? "" : percentage(x).replace(/\.0$/, "") + " %");

  // exp(x) · 10^shift with an exponent.
  const power = (x, shift) => {
    let exponent = Math.floor(x / Math.LN10);
    let digits = Math.exp(x - exponent * Math.LN10).toFixed(1);
    if (digits === "10.0") [digits, exponent] = ["1.0", exponent + 1];
    return `${digits}e${exponent + shift}`.replaceAll("-", "−");
  };

  const ratio = (x) => (x === null ? "0" : x > -4.7 && x < 9.2 ? Math.exp(x).toFixed(2) : power(x, 0));

  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children.filter((child) => child !== null));
    return node;
  };

  const word = (token) => make("span", { class: "token " + token.kind, translate: "no" }, token.text);

  const facts = (pairs) => {
    const node = make("dl", { class: "facts" });
    for (const [name, value] of pairs) node.append(make("dt", {}, name), make("dd", {}, value));
    return node;
  };

  // The caption stands outside of what scrolls, so that it is as wide as the page and no wider.
  let tables = 0;
  const table = (caption, heads, lines) => {
    const id = `caption-${(tables += 1)}`;
    const head = make("tr", {}, ...heads.map(([text, kind]) => make("th", { scope: "col", class: kind }, text)));
    const inner = make("table", { "aria-labelledby": id }, make("thead", {}, head), make("tbody", {}, ...lines));
    return make("div", {}, make("p", { class: "hint", id }, caption),
      make("div", { class: "scroll", role: "region", "aria-labelledby": id, tabindex: "0" }, inner));
  };

  const cells = (row, values) => {
    values.forEach((value, at) => row.append(at ? make("td", {}, value) : make("th", { scope: "row" }, value)));
    return row;
  };

  // For each potential its weight and what the probability becomes; what an earlier one made impossible has neither.
  const behind = (step, one) => {
    const cells = [];
    one.after.forEach((value, at) => {
      const before = at ? one.after[at - 1] : one.log_prob;
      const total = step.effects[at].log_normaliser;
      if (before === null) cells.push("–", "–");
      else if (value === null) cells.push("0", "masked");
      else cells.push(ratio(value - before), total === "" ? "" : percentage(value - total));
    });
    return cells;
  };

  const candidates = (step) => {
    const chosen = step.token === null ? -1 : step.token.id;
    const pairs = trace.factors.flatMap((factor) => [["weight of " + titled(factor) + ", ×", "factor"], ["behind it, %", ""]]);
    const heads = [["token", "named"], ["model, %", ""], ...pairs];
    const lines = step.candidates.map((one) => {
      const row = make("tr", one.token.id === chosen ? { class: "chosen", "aria-current": "true" } : {});
      return cells(row, [word(one.token), percentage(one.log_prob), ...behind(step, one)]);
    });
    const last = trace.factors.length ? "; the last column is what they are chosen with" : "";
    const shaded = step.token === null ? "" : "; the chosen one is shaded";
    return table("Likeliest tokens before and behind each potential" + last + shaded, heads, lines);
  };

  const told = (value) => (typeof value === "string" ? value : number(value));

  const change = (fact, chosen) =>
    fact.after === "" || !chosen || told(fact.after) === told(fact.before)
      ? told(fact.before)
      : told(fact.before) + " → " + told(fact.after);

  const share = (x) => percent(x > 0 ? Math.log(x) : null);

  const mass = (of) => {
    if (!of.masked) return "nothing";
    const tokens = of.masked === 1 ? "1 token" : `${of.masked} tokens`;
    return `${tokens}, ${share(of.mass)} of the model’s probability`;
  };

  const removed = (effect) => {
    if (!effect.removed.length) return null;
    const lines = effect.removed.map((one) => {
      const row = cells(make("tr"), [word(one.token), percentage(one.log_prob)]);
      row.append(make("td", { class: "words" }, one.why));
      return row;
    });
    return table("Likeliest of the tokens that it masked", [["token", "named"], ["model, %", ""], ["why", "words"]], lines);
  };

  const effect = (step, at) => {
    const factor = trace.factors[at];
    const own = step.effects[at];
    const kind = factor.name.includes(factor.kind) ? "" : ` (${factor.kind})`;
    const asked = factor.asked ? factor.asked.split(/ (?=--)/).flatMap((one) => [" ", make("code", { translate: "no" }, one)]) : [];
    const pairs = own.facts.map((fact) => [fact.name, change(fact, step.token !== null)]);
    if (step.token !== null) {
      pairs.push(["log-weight of the token", number(own.log_weight)]);
      pairs.push(["sum of these so far", number(own.sum_log_weights)]);
    }
    pairs.push(["masked", mass(own)]);
    return make("section", {},
      make("h3", {}, titled(factor), kind, factor.asked ? ":" : "", ...asked),
      own.verdict ? make("p", { class: "bad" }, "Weight 0: " + own.verdict) : null,
      facts(pairs),
      removed(own));
  };

  const summary = (step) => {
    const pairs = [];
    if (step.token !== null) {
      pairs.push(["probability", `${percent(step.log_prob)} by the model (rank ${step.rank + 1}), chosen with ${percent(step.log_final)}`]);
    }
    pairs.push(["log-weight of the step", number(step.log_normaliser)]);
    pairs.push(["log-weight so far", number(step.log_weight)]);
    pairs.push(["sum of the tokens’ log-weights", number(step.sum_log_weights)]);
    pairs.push(["masked in all", mass(step)]);
    pairs.push(["moved", `${share(step.moved)} of the model’s probability`]);
    return facts(pairs);
  };

  // What a screen reader says when another token is chosen; the panel is there to be read.
  const line = (step, at) => {
    const place = `Token ${at + 1} of ${trace.steps.length}`;
    if (step.token === null) return `${place}: ${step.log_normaliser === null ? "nothing can follow" : "none was chosen"}.`;
    const masked = step.log_final === null ? "impossible" : `chosen with ${percent(step.log_final)}`;
    return `${place}: ${step.token.text}, ${percent(step.log_prob)} by the model, ${masked}.`;
  };

  const show = (at, spoken) => {
    const step = trace.steps[at];
    const title = document.getElementById("h-panel");
    title.replaceChildren(`Token ${at + 1} of ${trace.steps.length}: `,
      step.token === null ? "none" : word(step.token),
      step.token === null ? "" : make("span", { class: "muted" }, ` (id ${step.token.id})`));
    if (spoken) document.getElementById("said").textContent = line(step, at);
    document.getElementById("details").replaceChildren(
      summary(step), candidates(step), ...step.effects.map((_, index) => effect(step, index)));
  };

  const select = (at, focus) => {
    if (at < 0 || at >= chips.length || at === selected) {
      if (focus && chips[at]) chips[at].focus();
      return;
    }
    selected = at;
    chips.forEach((chip, index) => {
      chip.setAttribute("aria-selected", String(index === at));
      chip.tabIndex = index === at ? 0 : -1;
    });
    rows.forEach((row, index) => row.classList.toggle("current", index === at));
    for (const line of cursors) {
      const x = Number(line.dataset.left) + (Number(line.dataset.width) * at) / Math.max(1, chips.length - 1);
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
      line.style.visibility = "visible";
    }
    show(at, focus);
    if (focus) chips[at].focus();
  };

  const moves = {
    ArrowRight: (at) => at + 1,
    ArrowLeft: (at) => at - 1,
    ArrowDown: (at) => at + 1,
    ArrowUp: (at) => at - 1,
    Home: () => 0,
    End: () => chips.length - 1,
  };

  list.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    if (!move || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    select(Math.min(chips.length - 1, Math.max(0, move(selected))), true);
  });
  list.addEventListener("click", (event) => {
    const chip = event.target.closest("[role=option]");
    if (chip) select(chips.indexOf(chip), true);
  });

  document.documentElement.classList.add("scripted");
  // What is forbidden is what the page was made for; else begin at the beginning.
  const stopped = trace.ending === "forbidden" || trace.ending === "dead end";
  select(stopped ? chips.length - 1 : 0, false);
})();
