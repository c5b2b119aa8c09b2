// The comparison: a sample, a rate, and each codec at the setting whose bytes are nearest to it.

/** What a picture or player shows, in words. */
function describe(sample, {codec, entry}) {
  if (codec === null) return `${sample.name}, original`;
  return `${sample.name}, ${DATA.codecs[codec].name} ${entry.setting}, ${bytes(entry.bytes)}`;
}

/** Mark, name, setting and bytes; how far the bytes are from the rate where that matters. */
function caption({codec, entry}) {
  const facts = codec === null ? bytes(entry.bytes) : `${entry.setting}, ${bytes(entry.bytes)}`;
  const parts = [marked(codec), h('span', {class: 'facts'}, facts), off(entry.ratio)];
  return parts.filter((part) => part !== null);
}

/** A remark on bytes that do not match. */
function off(ratio) {
  if (ratio === undefined || Math.abs(Math.log(ratio)) < Math.log(1.1)) return null;
  const text = ratio >= 1.995 ? `${rounded(ratio)} times the bytes`
    : `${fixed(Math.abs(ratio - 1) * 100, 0)}% ${ratio > 1 ? 'more' : 'fewer'} bytes`;
  return h('span', {class: 'off'}, text);
}

class Comparison {
  constructor(stage) {
    this.sample = 0;
    this.rate = Math.floor((DATA.compare.rates.length - 1) / 2);
    this.pair = [null, 0];
    this.controls = h('div', {class: 'controls'});
    this.note = h('p', {class: 'hint'});
    this.table = h('div', {class: 'scroll', role: 'region', tabindex: 0,
      'aria-label': 'This sample in numbers'});
    this.sides = h('div', {class: 'controls'});
    if (DATA.modality === 'image') {
      this.crops = new Crops((...box) => this.slider.outline(...box));
      this.slider = new Slider((x, y) => this.crops.look(x, y));
      const zoom = choice('Crops', ['1:1', '2:1'], 0, (index) => this.crops.zoom(index + 1));
      stage.append(this.controls, this.note, this.sides, this.slider.element, zoom,
        this.crops.element, this.table);
    } else {
      this.players = new Players();
      stage.append(this.controls, this.note, this.players.element, this.table);
    }
    this.controls.append(
      select('Sample', DATA.compare.samples.map((sample) => sample.name), 0, (index) => {
        this.sample = index;
        this.show();
      }),
      choice('Rate', DATA.compare.rates.map((rate) => `${short(rate)} ${DATA.unit}`), this.rate,
        (index) => {
          this.rate = index;
          this.show();
        }));
    this.show();
  }

  show() {
    const sample = DATA.compare.samples[this.sample];
    const shown = sample.shown[this.rate];
    const sides = [{codec: null, entry: {...sample.original, bytes: sample.bytes}},
      ...shown.map((entry) => ({codec: entry.codec, entry}))];
    this.note.textContent = sample.note ? `Shown: ${sample.note}.` : '';
    this.note.hidden = !sample.note;
    if (this.players) {
      this.players.show(sample, sides);
    } else {
      this.crops.show(sample, sides);
      this.chooseSides(sample, sides);
    }
    this.numbers(sample, shown);
  }

  /** Lists for the two sides of the slider; a side keeps its codec from sample to sample. */
  chooseSides(sample, sides) {
    const titles = sides.map(({codec}) => (codec === null ? 'original' : DATA.codecs[codec].name));
    const find = (codec) => Math.max(0, sides.findIndex((side) => side.codec === codec));
    const show = () => this.slider.show(sample, this.pair.map((codec) => sides[find(codec)]));
    if (sides.length > 1 && find(this.pair[1]) === 0) this.pair[1] = sides[1].codec;
    this.sides.replaceChildren(...['Left', 'Right'].map((label, i) => select(label, titles,
      find(this.pair[i]), (index) => {
        this.pair[i] = sides[index].codec;
        show();
      })));
    show();
  }

  numbers(sample, shown) {
    const heads = ['Codec', 'Setting', 'Bytes', ...DATA.metrics.map((metric) => metric.name)];
    const rows = shown.map((entry) => h('tr', {}, h('th', {scope: 'row'}, marked(entry.codec)),
      h('td', {class: 'text'}, entry.setting),
      h('td', {}, entry.bytes.toLocaleString('en-US'), off(entry.ratio)),
      ...DATA.metrics.map(({name, decimals}) => h('td', {}, fixed(entry.quality[name], decimals)))));
    const rate = `${short(DATA.compare.rates[this.rate])} ${DATA.unit}`;
    this.table.replaceChildren(h('table', {},
      h('caption', {}, h('bdi', {}, sample.name),
        ` near ${rate}; the original has ${bytes(sample.bytes)}`),
      h('thead', {}, h('tr', {}, ...heads.map((head, i) => h('th',
        {scope: 'col', class: i < 2 && 'text'}, head)))),
      h('tbody', {}, ...rows)));
  }
}

const stage = document.getElementById('stage');
if (stage) new Comparison(stage);
