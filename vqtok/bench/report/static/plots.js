// Rate-distortion curves: an SVG per metric, drawn again whenever something changes.
const hidden = new Set();
const MARGIN = {left: 52, right: 14, top: 10, bottom: 38};

function setUpPlots() {
  const plots = [...document.querySelectorAll('.plot')].map((figure, i) => new Plot(figure, i));
  const draw = () => plots.forEach((plot) => plot.draw());
  document.getElementById('log').addEventListener('change', draw);
  for (const key of document.querySelectorAll('.key')) {
    key.addEventListener('click', () => {
      const codec = Number(key.dataset.codec);
      if (!hidden.delete(codec)) hidden.add(codec);
      key.setAttribute('aria-pressed', String(!hidden.has(codec)));
      draw();
    });
  }
  let width = 0;
  new ResizeObserver(([entry]) => {
    if (entry.contentRect.width !== width) {
      width = entry.contentRect.width;
      draw();
    }
  }).observe(document.querySelector('.plots'));
}

/** Round numbers from low to high, about count of them; on a logarithmic axis 1, 2, 5 and tens. */
function ticks(low, high, count, log) {
  if (log) {
    for (const steps of [[1], [1, 2, 5], [1, 1.5, 2, 3, 5, 7]]) {
      const found = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
        found.push(...steps.map((step) => step * 10 ** power));
      }
      const inside = found.filter((tick) => tick >= low && tick <= high);
      if (inside.length >= 4) return inside;
    }
  }
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i += 1) found.push(i * step || 0);
  return found;
}

/** A number as a tick says it: no more decimals than the ticks need. */
function tickLabel(value, all) {
  const gap = all.length > 1 ? Math.min(...all.slice(1).map((tick, i) => tick - all[i])) : value;
  const size = Math.min(Math.abs(gap), Math.abs(value) || Infinity);
  let decimals = 0;
  while (decimals < 6 && Math.abs(value * 10 ** decimals - Math.round(value * 10 ** decimals))
    > 1e-6 * size * 10 ** decimals) decimals += 1;
  return fixed(value, decimals);
}

class Plot {
  constructor(figure, place) {
    this.canvas = figure.querySelector('.canvas');
    this.tip = figure.querySelector('.tip');
    this.metric = DATA.metrics[place];
    this.svg = s('svg', {tabindex: 0, role: 'img', onpointermove: (event) => this.point(event),
      onpointerdown: (event) => this.point(event), onpointerleave: () => this.choose(null),
      onkeydown: (event) => this.key(event), onblur: () => this.choose(null)});
    this.canvas.append(this.svg);
  }

  /** What is drawn: [{codec, setting, rate, value, error}] in the order of codecs and rates. */
  values() {
    const {name} = this.metric;
    return DATA.codecs.flatMap((codec, i) => (hidden.has(i) ? [] : codec.points
      .filter((point) => name in point.mean)
      .map((point) => ({codec: i, setting: point.setting, rate: point.rate[name],
        value: point.mean[name], error: point.error[name] || 0}))
      .sort((a, b) => a.rate - b.rate)));
  }

  draw() {
    const width = Math.max(240, this.canvas.clientWidth);
    const height = Math.round(clamp(width * 0.66, 220, 360));
    this.log = document.getElementById('log').checked;
    this.points = this.values();
    this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    this.svg.setAttribute('width', width);
    this.svg.setAttribute('height', height);
    this.svg.setAttribute('aria-label', this.summary());
    this.svg.replaceChildren();
    this.choose(null);
    if (!this.points.length) {
      this.svg.append(s('text', {x: width / 2, y: height / 2, 'text-anchor': 'middle'},
        'Nothing to draw'));
      return;
    }
    this.place(width, height);
    this.axes(width, height);
    for (const codec of new Set(this.points.map((point) => point.codec))) this.curve(codec);
    this.ring = s('circle', {class: 'ring', r: 10, visibility: 'hidden'});
    this.svg.append(this.ring);
  }

  summary() {
    const names = new Set(this.points.map((point) => DATA.codecs[point.codec].name));
    return `${this.metric.name} against rate of ${[...names].join(', ') || 'no codec'}. `
      + 'Arrow keys read the points.';
  }

  place(width, height) {
    const rates = this.points.map((point) => point.rate);
    const tops = this.points.map((point) => point.value + point.error);
    const bottoms = this.points.map((point) => point.value - point.error);
    const along = this.log ? Math.log : (value) => value;
    const span = (low, high, pad) => {
      const extra = (high - low || Math.abs(high) || 1) * pad;
      return [low - extra, high + extra];
    };
    const [left, right] = span(along(Math.min(...rates)), along(Math.max(...rates)), 0.04);
    const [low, high] = span(Math.min(...bottoms), Math.max(...tops), 0.05);
    this.rates = this.log ? [Math.exp(left), Math.exp(right)] : [Math.max(0, left), right];
    this.span = [low, high];
    const start = along(this.rates[0]);
    const [w, t] = [width - MARGIN.left - MARGIN.right, height - MARGIN.top - MARGIN.bottom];
    this.x = (rate) => MARGIN.left + ((along(rate) - start) / (right - start)) * w;
    this.y = (value) => MARGIN.top + ((high - value) / (high - low)) * t;
  }

  axes(width, height) {
    const bottom = height - MARGIN.bottom;
    const along = ticks(...this.rates, 5, this.log);
    const up = ticks(...this.span, 5, false);
    let last = -Infinity;
    for (const tick of along) {
      const x = this.x(tick);
      this.svg.append(s('line', {class: 'grid', x1: x, x2: x, y1: MARGIN.top, y2: bottom}));
      if (x - last < 34) continue;
      last = x;
      this.svg.append(s('text', {x, y: bottom + 16, 'text-anchor': 'middle'}, tickLabel(tick, along)));
    }
    for (const tick of up) {
      const y = this.y(tick);
      this.svg.append(
        s('line', {class: 'grid', x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y}),
        s('text', {x: MARGIN.left - 8, y: y + 4, 'text-anchor': 'end'}, tickLabel(tick, up)));
    }
    this.svg.append(s('text', {class: 'axis', x: width - MARGIN.right, y: height - 4,
      'text-anchor': 'end'}, DATA.unit === 'bpp' ? 'bits per pixel' : 'kilobits per second'));
  }

  curve(codec) {
    const points = this.points.filter((point) => point.codec === codec);
    const at = points.map((point) => [this.x(point.rate), this.y(point.value)]);
    const line = at.map(([x, y], i) => `${i ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`).join('');
    const bars = points.filter((point) => point.error).map((point) => {
      const [x, top, low] = [this.x(point.rate), this.y(point.value + point.error),
        this.y(point.value - point.error)].map((each) => each.toFixed(1));
      return `M${x} ${top}V${low}M${x - 3} ${top}h6M${x - 3} ${low}h6`;
    }).join('');
    this.svg.append(s('g', {class: `curve ${colourOf(codec)}`},
      s('path', {class: 'bars', d: bars}), s('path', {class: 'line', d: line}),
      ...at.map(([x, y]) => shape(codec, x, y, 15))));
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let [best, distance] = [null, 30];
    (this.points || []).forEach((point, i) => {
      const away = Math.hypot(this.x(point.rate) - x, this.y(point.value) - y);
      if (away < distance) [best, distance] = [i, away];
    });
    this.choose(best);
  }

  key(event) {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (event.key === 'Escape') this.choose(null);
    if (!step || !this.points.length) return;
    event.preventDefault();
    const from = this.chosen === null ? (step > 0 ? -1 : 0) : this.chosen;
    this.choose((from + step + this.points.length) % this.points.length);
  }

  /** Show the values of a point, by its number; null for none. */
  choose(index) {
    this.chosen = index;
    this.tip.hidden = index === null;
    if (this.ring) this.ring.setAttribute('visibility', index === null ? 'hidden' : 'visible');
    if (index === null) return;
    const {codec, setting, rate, value, error} = this.points[index];
    const {decimals, unit} = this.metric;
    const [x, y] = [this.x(rate), this.y(value)];
    this.ring.setAttribute('cx', x);
    this.ring.setAttribute('cy', y);
    const external = DATA.codecs[codec].kind === 'external' ? ' external' : '';
    this.tip.replaceChildren(marked(codec), h('span', {}, `${external} ${setting}`), h('br'),
      `${rounded(rate)} ${DATA.unit}, ${fixed(value, decimals)}`
      + `${error ? ` \u00b1 ${fixed(error, decimals)}` : ''} ${unit}`);
    const room = this.canvas.clientWidth - this.tip.offsetWidth;
    this.tip.style.left = `${clamp(x - this.tip.offsetWidth / 2, 0, Math.max(0, room))}px`;
    const above = y - this.tip.offsetHeight - 14;
    this.tip.style.top = `${this.canvas.offsetTop + (above < 0 ? y + 14 : above)}px`;
  }
}

setUpPlots();
