const DATA = JSON.parse(document.getElementById('data').textContent);
const COLOURS = 8;
const SHAPES = document.querySelectorAll('.symbols symbol').length;
const SVG = 'http://www.w3.org/2000/svg';
const MINUS = '\u2212';

/** An element: h('button', {class: 'key', onclick: go}, 'text', child). Texts stay texts. */
function h(name, attributes, ...children) {
  return build(document.createElement(name), attributes, children);
}

/** The same for SVG. */
function s(name, attributes, ...children) {
  return build(document.createElementNS(SVG, name), attributes, children);
}

function build(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** The shape of a codec, at a place in an SVG. */
function shape(codec, x, y, size = 18) {
  return s('use', {
    href: `#mark-${codec % SHAPES}`, x: x - size / 2, y: y - size / 2, width: size, height: size,
  });
}

const colourOf = (codec) => `codec-${codec % COLOURS} ${DATA.codecs[codec].kind}`;

/** Mark and name of a codec, as in the tables; null is the original. */
function marked(codec) {
  if (codec === null) return h('span', {class: 'codec'}, h('span', {class: 'name'}, 'original'));
  const svg = s('svg', {class: `mark ${colourOf(codec)}`, viewBox: '-9 -9 18 18',
    'aria-hidden': 'true'}, shape(codec, 0, 0));
  return h('span', {class: 'codec'}, svg, h('bdi', {class: 'name'}, DATA.codecs[codec].name));
}

function fixed(value, decimals) {
  if (value === null || value === undefined) return '\u2013';
  return value.toLocaleString('en-US', {
    minimumFractionDigits: decimals, maximumFractionDigits: decimals,
  }).replace('-', MINUS);
}

/** Three significant digits. */
function rounded(value) {
  const near = Number(value.toPrecision(3));
  return fixed(near, near ? clamp(2 - Math.floor(Math.log10(Math.abs(near))), 0, 6) : 0);
}

/** At most three: 0.3, 1.25, 24. */
const short = (value) => rounded(value).replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '');

function bytes(count) {
  if (count < 1000) return `${count} B`;
  return count < 1e6 ? `${rounded(count / 1e3)} kB` : `${rounded(count / 1e6)} MB`;
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** Buttons of which one is pressed; change(index) is called when another one is. */
function choice(label, titles, chosen, change) {
  const buttons = titles.map((title, index) => h('button', {
    type: 'button', 'aria-pressed': String(index === chosen), onclick: () => {
      buttons.forEach((each, i) => each.setAttribute('aria-pressed', String(i === index)));
      change(index);
    },
  }, title));
  return h('div', {class: 'choice', role: 'group', 'aria-label': label},
    h('span', {class: 'label'}, label), ...buttons);
}

/** A labelled list to choose from. */
function select(label, titles, chosen, change) {
  const list = h('select', {onchange: () => change(Number(list.value))},
    ...titles.map((title, index) => h('option', {value: index, selected: index === chosen}, title)));
  return h('label', {class: 'select'}, h('span', {class: 'label'}, label), list);
}
