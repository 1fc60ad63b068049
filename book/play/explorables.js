// The book's explorables: pictures with controls, drawn from numbers that dlcore computed (book/explorables.py).
// A figure in a box of class "play" is followed by its data; its static image stays until the picture is drawn.
(() => {
  "use strict";

  const COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
  const DASHES = ["", "7 3", "2 3", "9 3 2 3", "12 4", "4 4"];
  const NARROW = window.innerWidth < 600; // on a phone the picture is drawn smaller, so that its text stays readable
  const WIDTH = NARROW ? 420 : 720;
  const HEIGHT = NARROW ? 380 : 420;
  const EDGE = { left: 64, right: 20, top: 16, bottom: 52 };
  let ids = 0;

  function make(tag, settings = {}, ...children) {
    const element = Object.assign(document.createElement(tag), settings);
    element.append(...children);
    return element;
  }

  function draw(parent, tag, attributes, text) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }

  const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;
  const counted = (count) => (count === 1 ? "1 step" : `${count} steps`);
  const short = (value) => String(Number(value.toPrecision(2))).replace("-", "−");
  const signed = (value, digits) => value.toFixed(digits).replace("-", "−");

  // ----------------------------------------------------------------------------------------------
  // Controls: native ones, so that the keyboard and screen readers know them. Each returns its reader.

  function control(panel, label, input, says) {
    input.id = `explorable-${++ids}`;
    const row = make("div", { className: "control" }, make("label", { htmlFor: input.id, textContent: label }), input);
    if (says) {
      const value = make("output", { htmlFor: input.id });
      const update = () => {
        value.textContent = says(Number(input.value));
        input.setAttribute("aria-valuetext", value.textContent);
      };
      input.addEventListener("input", update);
      update();
      row.append(value);
    }
    panel.append(row);
    return input;
  }

  function slider(panel, label, values, start, says) {
    const input = make("input", { type: "range", min: 0, max: values.length - 1, step: 1 });
    input.value = start;
    control(panel, label, input, (index) => says(values[index]));
    return () => Number(input.value);
  }

  function select(panel, label, names) {
    const options = names.map((name, index) => make("option", { value: index, textContent: name }));
    const input = control(panel, label, make("select", {}, ...options));
    return () => Number(input.value);
  }

  function checks(panel, label, names, on) {
    const boxes = names.map((name, index) => {
      const box = make("input", { type: "checkbox", checked: on(name) });
      const key = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      for (const [name, value] of [["class", "key"], ["width", 26], ["height", 10], ["aria-hidden", "true"]]) {
        key.setAttribute(name, value);
      }
      draw(key, "line", {
        x1: 0, x2: 26, y1: 5, y2: 5, stroke: COLORS[index], "stroke-width": 3, "stroke-dasharray": DASHES[index],
      });
      return [box, make("label", {}, box, key, ` ${name}`)];
    });
    const group = make("fieldset", {}, make("legend", { textContent: label }), ...boxes.map(([, row]) => row));
    panel.append(group);
    return () => boxes.map(([box]) => box.checked);
  }

  // ----------------------------------------------------------------------------------------------
  // A plot with two axes. A scale maps numbers to places; logarithmic ones take the logarithm before.

  function plot(svg, x, y) {
    svg.replaceChildren();
    const place = {
      x: (v) => EDGE.left + ((v - x.from) / (x.to - x.from)) * (WIDTH - EDGE.left - EDGE.right),
      y: (v) => HEIGHT - EDGE.bottom - ((v - y.from) / (y.to - y.from)) * (HEIGHT - EDGE.top - EDGE.bottom),
    };
    for (const [value, label] of x.ticks) {
      draw(svg, "line", { class: "grid", x1: place.x(value), x2: place.x(value), y1: EDGE.top, y2: HEIGHT - EDGE.bottom });
      draw(svg, "text", { x: place.x(value), y: HEIGHT - EDGE.bottom + 20, "text-anchor": "middle" }, label);
    }
    for (const [value, label] of y.ticks) {
      draw(svg, "line", { class: "grid", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: place.y(value), y2: place.y(value) });
      draw(svg, "text", { x: EDGE.left - 8, y: place.y(value) + 5, "text-anchor": "end" }, label);
    }
    draw(svg, "text", { x: (EDGE.left + WIDTH - EDGE.right) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, x.label);
    const middle = (EDGE.top + HEIGHT - EDGE.bottom) / 2;
    draw(svg, "text", { x: 16, y: middle, "text-anchor": "middle", transform: `rotate(-90 16 ${middle})` }, y.label);
    return place;
  }

  const points = (place, xs, ys) => xs.map((x, i) => `${place.x(x).toFixed(1)},${place.y(ys[i]).toFixed(1)}`).join(" ");

  function line(svg, place, xs, ys, attributes) {
    draw(svg, "polyline", { points: points(place, xs, ys), fill: "none", "stroke-width": 2.5, ...attributes });
  }

  function dots(svg, place, xs, ys, color, size = 4) {
    xs.forEach((x, i) => draw(svg, "circle", { cx: place.x(x), cy: place.y(ys[i]), r: size, fill: color }));
  }

  const power = (exponent) => "10" + [...String(exponent)].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻").join("");

  // ----------------------------------------------------------------------------------------------
  // The explorables. Each takes its data, a panel for controls and a picture, and returns a function that draws
  // and says in words what is to be seen.

  const kinds = {
    "gradient-flow"(data, panel, svg) {
      const unit = select(panel, "Unit", data.units);
      const depth = slider(panel, "Hidden layers", data.depths, 1, (v) => `${v}`);
      const scale = slider(panel, "Scale of the weights", data.scales, data.scales.indexOf(1), (v) => `${short(v)}`);
      return () => {
        const net = data.nets.find(
          (n) => n.unit === data.units[unit()] && n.depth === data.depths[depth()] && n.scale === data.scales[scale()],
        );
        const layers = net.measured.map((_, i) => i + 1);
        const all = [...net.low, ...net.high, ...net.predicted];
        const from = Math.min(-8, Math.floor(Math.min(...all)));
        const to = Math.max(2, Math.ceil(Math.max(...all)));
        const step = Math.ceil((to - from) / 8);
        const ticks = [];
        for (let e = Math.ceil(from / step) * step; e <= to; e += step) ticks.push([e, power(e)]);
        const every = net.depth <= 5 ? 1 : net.depth <= 10 ? 2 : 5;
        const place = plot(
          svg,
          { from: 0.5, to: net.depth + 0.5, label: "hidden layer (1 is next to the input)",
            ticks: layers.filter((l) => l === 1 || l % every === 0).map((l) => [l, l]) },
          { from, to, label: "size of the gradient (RMS of δ)", ticks },
        );
        const back = [...layers].reverse();
        draw(svg, "polygon", {
          points: `${points(place, layers, net.low)} ${points(place, back, [...net.high].reverse())}`,
          fill: COLORS[0], "fill-opacity": 0.25,
        });
        line(svg, place, layers, net.predicted, { class: "ink", "stroke-dasharray": "6 4", "stroke-width": 2 });
        dots(svg, place, layers, net.measured, COLORS[0]);
        const decades = net.measured[0] - net.measured.at(-1);
        return `From layer ${net.depth} down to layer 1 the gradient ${changed(decades, net.depth - 1)} ` +
          `Dots: mean of ${data.seeds} seeds, band: smallest to largest, dashed line: mean-field theory.`;
      };
    },

    "optimizer-paths"(data, panel, svg) {
      const surface = select(panel, "Surface", data.surfaces.map((s) => s.name));
      const says = (v) => (v === 1 ? "the best one" : `${v < 1 ? `1/${1 / v}` : v} × the best`);
      const factor = slider(panel, "Learning rate", data.factors, 2, says);
      const names = [...new Set(data.surfaces[0].paths.map((p) => p.optimizer))];
      const shown = checks(panel, "Optimizers", names, (n) => ["SGD", "Momentum", "Adam"].includes(n));
      const steps = slider(panel, "Points", [...Array(50).keys()].map((k) => k + 1), 49, (v) => `${v} of 50`);
      return () => {
        const ground = data.surfaces[surface()];
        const place = terrain(svg, ground);
        const texts = names.map((name, i) => {
          if (!shown()[i]) return "";
          const path = ground.paths[i * data.factors.length + factor()];
          return trail(svg, place, ground, path, steps() + 2, i, `${name} (rate ${short(path.rate)})`);
        });
        return texts.filter(Boolean).join("; ") + (ground.every > 1 ? `. A point for every ${ground.every} steps.` : ".");
      };
    },

    momentum(data, panel, svg) {
      const surface = select(panel, "Surface", data.surfaces.map((s) => s.name));
      const rate = slider(panel, "Learning rate", data.factors, 2, (v) => `${v} × the best at 0.9`);
      const momentum = slider(panel, "Momentum", data.momenta, 3, (v) => `${v}`);
      return () => {
        const ground = data.surfaces[surface()];
        const place = terrain(svg, ground);
        const path = ground.paths[momentum() * data.factors.length + rate()];
        const text = trail(svg, place, ground, path, 51, 1, `Momentum ${data.momenta[momentum()]}, rate ${short(path.rate)}`);
        return text + (ground.every > 1 ? `. A point for every ${ground.every} steps.` : ".");
      };
    },

    "learning-rates"(data, panel, svg) {
      const shown = checks(panel, "Methods", data.methods, () => true);
      const says = (v) => short(v);
      const low = slider(panel, "Brush from", data.rates, 0, says);
      const high = slider(panel, "Brush to", data.rates, data.rates.length - 1, says);
      const count = data.accuracy[0][0].length;
      const seed = slider(panel, "Seed", [...Array(count + 1).keys()], 0, (v) => (v ? `${v} of ${count}` : "mean and range of all"));
      const logs = data.rates.map(Math.log10);
      return () => {
        const [from, to] = [Math.min(low(), high()), Math.max(low(), high())];
        const ticks = [];
        for (let e = Math.ceil(logs[0]); e <= logs.at(-1); e++) ticks.push([e, String(10 ** e)]);
        const place = plot(
          svg,
          { from: logs[0] - 0.1, to: logs.at(-1) + 0.1, label: "learning rate", ticks },
          { from: 0, to: 100, label: "validation accuracy (%)", ticks: [0, 20, 40, 60, 80, 100].map((v) => [v, v]) },
        );
        draw(svg, "rect", {
          class: "brush", x: place.x(logs[from] - 0.06), y: EDGE.top, height: HEIGHT - EDGE.top - EDGE.bottom,
          width: place.x(logs[to] + 0.06) - place.x(logs[from] - 0.06),
        });
        const texts = data.methods.map((name, i) => {
          if (!shown()[i]) return "";
          const rows = data.accuracy[i];
          const curve = rows.map((row) => (seed() ? row[seed() - 1] : mean(row)));
          if (!seed()) {
            const back = [...logs].reverse();
            const [least, most] = [rows.map((r) => Math.min(...r)), rows.map((r) => Math.max(...r)).reverse()];
            draw(svg, "polygon", {
              points: `${points(place, logs, least)} ${points(place, back, most)}`, fill: COLORS[i], "fill-opacity": 0.15,
            });
          }
          line(svg, place, logs, curve, { stroke: COLORS[i], "stroke-dasharray": DASHES[i] });
          const inside = curve.slice(from, to + 1);
          const best = from + inside.indexOf(Math.max(...inside));
          dots(svg, place, [logs[best]], [curve[best]], COLORS[i], 5);
          return `${name}: ${curve[best].toFixed(0)} % at ${short(data.rates[best])}`;
        });
        return `Best between ${short(data.rates[from])} and ${short(data.rates[to])}: ` +
          (texts.filter(Boolean).join("; ") || "no method is shown") + ".";
      };
    },

    dropout(data, panel, svg) {
      const size = slider(panel, "Training examples", data.sizes, 1, (v) => `${v}`);
      const rate = slider(panel, "Dropout rate", data.rates, 0, (v) => `${v}`);
      return () => {
        const place = plot(
          svg,
          { from: -0.03, to: data.rates.at(-1) + 0.03, label: "dropout rate", ticks: data.rates.map((v) => [v, v]) },
          { from: 0, to: 100, label: "accuracy (%)", ticks: [0, 20, 40, 60, 80, 100].map((v) => [v, v]) },
        );
        const now = ["train", "valid"].map((part, i) => {
          const rows = data[part][size()];
          const curve = rows.map(mean);
          line(svg, place, data.rates, curve, { stroke: COLORS[i], "stroke-dasharray": DASHES[i] });
          rows.forEach((row, k) => row.forEach((v) => dots(svg, place, [data.rates[k]], [v], COLORS[i], 2)));
          dots(svg, place, [data.rates[rate()]], [curve[rate()]], COLORS[i], 7);
          draw(svg, "text", { class: "direct", x: place.x(data.rates[1]), y: place.y(curve[1]) + (i || curve[1] > 90 ? 24 : -12) },
            ["training", "validation"][i]);
          return curve[rate()];
        });
        draw(svg, "line", { class: "ink", x1: place.x(data.rates[rate()]), x2: place.x(data.rates[rate()]),
          y1: place.y(now[0]), y2: place.y(now[1]), "stroke-width": 2 });
        return `With ${data.sizes[size()]} examples and a dropout rate of ${data.rates[rate()]}: training accuracy ` +
          `${now[0].toFixed(1)} %, validation accuracy ${now[1].toFixed(1)} %, a gap of ${signed(now[0] - now[1], 1)} points. ` +
          `Lines: means of ${data.train[0][0].length} seeds; small dots: the seeds.`;
      };
    },
  };

  // A surface as a picture whose shade is the value's rank, with its minimum.
  function terrain(svg, ground) {
    const ticks = ([from, to]) => [from, from / 2 + to / 2, to].map((v) => [v, short(v)]);
    const place = plot(
      svg,
      { from: ground.x[0], to: ground.x[1], label: "θ₁", ticks: ticks(ground.x) },
      { from: ground.y[0], to: ground.y[1], label: "θ₂", ticks: ticks(ground.y) },
    );
    const sorted = ground.values.flat().sort((a, b) => a - b);
    const [columns, rows] = [ground.values[0].length, ground.values.length];
    const canvas = make("canvas", { width: columns, height: rows });
    const pen = canvas.getContext("2d");
    ground.values.forEach((row, j) => {
      row.forEach((value, i) => {
        let [low, high] = [0, sorted.length];
        while (low < high) {
          const half = (low + high) >> 1;
          if (sorted[half] < value) low = half + 1;
          else high = half;
        }
        const shade = Math.round(245 - 90 * (1 - low / sorted.length));
        pen.fillStyle = `rgb(${shade},${shade},${shade})`;
        pen.fillRect(i, rows - 1 - j, 1, 1);
      });
    });
    draw(svg, "image", {
      href: canvas.toDataURL(), preserveAspectRatio: "none", x: place.x(ground.x[0]), y: place.y(ground.y[1]),
      width: place.x(ground.x[1]) - place.x(ground.x[0]), height: place.y(ground.y[0]) - place.y(ground.y[1]),
    });
    const [mx, my] = ground.minimum;
    draw(svg, "text", { class: "star", x: place.x(mx), y: place.y(my) + 9, "text-anchor": "middle" }, "★");
    return place;
  }

  // How a gradient changes over some layers, in words: by a factor for each, or by percents where that is near one.
  function changed(decades, layers) {
    if (Math.abs(decades) < 0.05) return "stays level, within a tenth of a power of ten.";
    const factor = 10 ** (decades / layers);
    const percent = 100 * Math.abs(factor - 1);
    const each = percent < 10 ? `${percent.toFixed(1)} %` : `a factor of ${short(factor)}`;
    return `${decades < 0 ? "shrinks" : "grows"} by ${Math.abs(decades).toFixed(1)} powers of ten: ` +
      `by ${each} for each layer.`;
  }

  // A path up to a point, and in words where it ends.
  function trail(svg, place, ground, path, count, index, name) {
    const part = path.points.slice(0, count);
    const [xs, ys] = [part.map((p) => p[0]), part.map((p) => p[1])];
    line(svg, place, xs, ys, { stroke: COLORS[index], "stroke-dasharray": DASHES[index] });
    dots(svg, place, xs.slice(1), ys.slice(1), COLORS[index], 2.5);
    dots(svg, place, [xs[0]], [ys[0]], "#000000", 5);
    if (path.points.length < 51 && count > path.points.length) {
      return `${name} leaves the picture after ${counted((path.points.length - 1) * ground.every)}`;
    }
    const distance = Math.hypot(xs.at(-1) - ground.minimum[0], ys.at(-1) - ground.minimum[1]);
    return `${name} is ${short(distance)} from the minimum after ${counted((part.length - 1) * ground.every)}`;
  }

  // ----------------------------------------------------------------------------------------------

  function start(figure) {
    const store = figure.parentElement.querySelector("script[id^=data-]");
    const name = store.id.replace("data-", "");
    const data = JSON.parse(store.textContent);
    figure.classList.add("explorable");
    figure.dataset.explorable = name;
    const panel = make("div", { className: "controls" });
    panel.setAttribute("role", "group");
    panel.setAttribute("aria-label", "Controls of the figure");
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("role", "img");
    const words = make("p", { className: "says" });
    words.setAttribute("aria-live", "polite");
    const show = kinds[name](data, panel, svg);
    const update = () => {
      words.textContent = show();
      svg.setAttribute("aria-label", words.textContent);
    };
    update();
    panel.addEventListener("input", update);
    const image = figure.querySelector("img");
    image.closest("a")?.replaceWith(image);
    image.hidden = true;
    image.after(panel, svg, words);
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll(".play figure").forEach(start);
  });
})();
