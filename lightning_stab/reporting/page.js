"use strict";
// Values under the pointer, zooming and hiding. Names from logs are only ever set as textContent.
(() => {
  const W = 1000, H = 200;
  const digits = (v) => {
    if (v === null || v === undefined) return "not finite";
    if (typeof v === "string") return v;
    const size = Math.abs(v);
    if (size !== 0 && (size < 1e-3 || size >= 1e5)) return v.toExponential(2).replace("e+", "e");
    return Number(v.toPrecision(3)).toLocaleString("en-US", { maximumFractionDigits: 6 });
  };
  const add = (parent, tag, cls, text) => {
    const element = document.createElement(tag);
    if (cls) element.className = cls;
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  };
  const nearest = (steps, x) => {
    let low = 0, high = steps.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (steps[middle] < x) low = middle + 1; else high = middle;
    }
    return low > 0 && x - steps[low - 1] < steps[low] - x ? low - 1 : low;
  };
  const ticks = (low, high, most) => {
    const raw = (high - low) / most, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
    const found = [];
    for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(i * step);
    return found;
  };
  const charts = [];

  function show(chart) {  // draw the window of steps, and the y range of what is in it
    const { data, view, plot } = chart;
    const [x0, x1] = view, [f0, f1] = data.x;
    const whole = x0 === f0 && x1 === f1;
    const place = (v) => (data.log ? Math.log10(v) : v);
    let low = data.y[0], high = data.y[1];
    if (!whole) {
      const seen = [];
      data.lines.forEach((line, i) => {
        if (!chart.off.has(i)) line.s.forEach((s, k) => {
          const v = line.v[k];
          if (s >= x0 && s <= x1 && v !== null && (!data.log || v > 0)) seen.push(place(v));
        });
      });
      if (seen.length) {
        low = seen.reduce((a, b) => Math.min(a, b)); high = seen.reduce((a, b) => Math.max(a, b));
        const gap = (high - low) * 0.06 || Math.abs(high) * 0.06 || 0.5;
        low -= gap; high += gap;
      }
    }
    const left = (x0 - f0) / (f1 - f0) * W, width = (x1 - x0) / (f1 - f0) * W;
    const size = data.y[1] - data.y[0];
    const top = (data.y[1] - high) / size * H, height = (high - low) / size * H;
    plot.querySelector("svg").setAttribute("viewBox", `${left} ${top} ${width} ${height}`);
    plot.querySelectorAll(".mark").forEach((mark) => {
      const at = (Number(mark.dataset.x) - x0) / (x1 - x0);
      mark.style.left = `${at * 100}%`;
      mark.style.display = at < 0 || at > 1 ? "none" : "";
    });
    chart.grid.style.display = whole ? "" : "none";
    chart.xs.replaceChildren(...(whole ? chart.xsAtStart : ticks(x0, x1, 6).map((s) => {
      const span = document.createElement("span");
      span.textContent = digits(s); span.style.left = `${(s - x0) / (x1 - x0) * 100}%`;
      return span;
    })));
    chart.ys.replaceChildren(...(whole ? chart.ysAtStart : ticks(low, high, 4).map((v) => {
      const span = document.createElement("span");
      span.textContent = digits(data.log ? 10 ** v : v);
      span.style.top = `${(high - v) / (high - low) * H}px`;
      return span;
    })));
  }

  function zoomAll(name, first, last) {
    charts.filter((c) => c.data.name === name && c.data.x[1] >= first).forEach((c) => {
      c.view = first === null ? [...c.data.x] : [first, last];
      show(c);
    });
    if (name !== "step") return;
    document.querySelectorAll("[data-lane]").forEach((lane) => {
      const one = charts.find((c) => c.data.name === "step");
      const [f0, f1] = one.data.x, from = first === null ? f0 : first, to = first === null ? f1 : last;
      lane.setAttribute("viewBox", `${(from - f0) / (f1 - f0) * W} 0 ${(to - from) / (f1 - f0) * W} 10`);
    });
  }

  const tip = add(document.body, "div", "tip"); tip.hidden = true;
  function tell(event, title, rows) {
    tip.replaceChildren();
    add(tip, "b", "", title);
    rows.forEach(([cls, text]) => add(tip, "div", cls, text));
    tip.hidden = false;
    const right = event.clientX + tip.offsetWidth + 24 > document.documentElement.clientWidth;
    tip.style.left = `${event.pageX + (right ? -tip.offsetWidth - 14 : 14)}px`;
    tip.style.top = `${event.pageY + 12}px`;
  }

  document.querySelectorAll(".chart").forEach((figure) => {
    const data = JSON.parse(figure.dataset.chart), plot = figure.querySelector(".plot");
    const xs = figure.querySelector(".x"), ys = figure.querySelector(".y");
    const chart = { data, plot, xs, ys, off: new Set(), view: [...data.x],
      grid: plot.querySelector(".grid"), xsAtStart: [...xs.children], ysAtStart: [...ys.children] };
    charts.push(chart);
    const rule = add(plot, "div", "rule"), zoom = add(plot, "div", "zoom");
    rule.hidden = zoom.hidden = true;
    let start = null;
    const fraction = (event) => {
      const box = plot.getBoundingClientRect();
      return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    };
    const at = (part) => chart.view[0] + part * (chart.view[1] - chart.view[0]);
    plot.addEventListener("pointermove", (event) => {
      const part = fraction(event), x = at(part);
      rule.hidden = false; rule.style.left = `${part * 100}%`;
      if (start !== null) {
        zoom.hidden = false;
        zoom.style.left = `${Math.min(start, part) * 100}%`;
        zoom.style.width = `${Math.abs(part - start) * 100}%`;
      }
      const shown = data.lines.map((line, i) => [line, i]).filter(([line, i]) => !chart.off.has(i) && line.s.length);
      const rows = shown.slice(0, 12).map(([line]) => {
        const k = nearest(line.s, x);
        return [line.c, `${line.n}  ${digits(line.v[k])}  (${data.name.split(",")[0]} ${digits(line.s[k])})`];
      });
      if (shown.length > 12) rows.push(["note", `and ${shown.length - 12} more`]);
      tell(event, `${data.name.split(",")[0]} ${Math.round(x).toLocaleString("en-US")}`, rows);
    });
    plot.addEventListener("pointerleave", () => { rule.hidden = tip.hidden = true; });
    plot.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse") { start = fraction(event); plot.setPointerCapture(event.pointerId); event.preventDefault(); }
    });
    plot.addEventListener("pointerup", (event) => {
      const end = fraction(event), from = start;
      start = null; zoom.hidden = true;
      if (from !== null && Math.abs(end - from) > 0.01) zoomAll(data.name, at(Math.min(from, end)), at(Math.max(from, end)));
    });
    plot.addEventListener("dblclick", () => zoomAll(data.name, null, null));
    figure.querySelectorAll("button[data-line]").forEach((button) => button.addEventListener("click", () => {
      const i = Number(button.dataset.line), hide = !chart.off.has(i);
      chart.off[hide ? "add" : "delete"](i);
      button.classList.toggle("off", hide);
      plot.querySelector(`path[data-line="${i}"]`).classList.toggle("off", hide);
      show(chart);
    }));
  });

  document.querySelectorAll(".heat").forEach((figure) => {
    const data = JSON.parse(figure.dataset.heat), image = figure.querySelector("img");
    image.addEventListener("pointermove", (event) => {
      const box = image.getBoundingClientRect();
      const row = Math.min(Math.floor((event.clientY - box.top) / box.height * data.rows.length), data.rows.length - 1);
      const values = data.v[Math.max(row, 0)], part = (event.clientX - box.left) / box.width;
      const column = Math.min(Math.max(Math.floor(part * values.length), 0), values.length - 1);
      const step = Math.round(data.x[0] + (column + 1) / values.length * (data.x[1] - data.x[0]));
      const value = values[column] === null ? "not measured yet" : digits(values[column]);
      tell(event, data.rows[Math.max(row, 0)], [["", `${value}  (step ${step.toLocaleString("en-US")})`]]);
    });
    image.addEventListener("pointerleave", () => { tip.hidden = true; });
  });
})();
