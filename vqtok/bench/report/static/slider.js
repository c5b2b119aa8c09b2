// Pictures: a divider between two of them, and crops of all of them at one place.

/** A picture over another one; the divider follows the pointer, the keyboard through a range. */
class Slider {
  constructor(look) {
    this.look = look;
    this.under = h('img', {draggable: 'false'});
    this.over = h('img', {draggable: 'false', class: 'over'});
    this.window = h('div', {class: 'window', 'aria-hidden': 'true'});
    this.labels = [h('div', {class: 'tag left'}), h('div', {class: 'tag right'})];
    this.frame = h('div', {class: 'frame'}, this.under, this.over, this.window,
      h('div', {class: 'divider', 'aria-hidden': 'true'}));
    this.range = h('input', {type: 'range', min: 0, max: 100, step: 0.5, value: 50,
      'aria-label': 'Divider between the two pictures', oninput: () => this.move()});
    this.frame.addEventListener('pointerdown', (event) => {
      this.frame.setPointerCapture(event.pointerId);
      this.drag(event);
    });
    this.frame.addEventListener('pointermove', (event) => {
      if (this.frame.hasPointerCapture(event.pointerId)) this.drag(event);
    });
    this.frame.addEventListener('dblclick', (event) => {
      const box = this.frame.getBoundingClientRect();
      look((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    });
    this.facts = h('table');
    this.sight = h('div', {class: 'sight'}, h('div', {class: 'tags'}, ...this.labels), this.frame,
      this.range);
    this.element = h('div', {class: 'slider'}, this.sight,
      h('div', {class: 'scroll'}, this.facts));
    this.move();
  }

  drag(event) {
    const box = this.frame.getBoundingClientRect();
    this.range.value = clamp(((event.clientX - box.left) / box.width) * 100, 0, 100);
    this.move();
  }

  move() {
    this.frame.style.setProperty('--at', `${this.range.value}%`);
    this.range.setAttribute('aria-valuetext', `${Math.round(this.range.value)}% left picture`);
  }

  /** The two sides, left and right: {codec, entry} as in the comparison. */
  show(sample, sides) {
    this.sight.style.maxWidth = `${Math.max(320, sample.width)}px`;
    this.frame.style.width = `min(100%, ${sample.width}px)`;
    this.frame.style.aspectRatio = `${sample.width} / ${sample.height}`;
    [this.over, this.under].forEach((image, i) => {
      image.src = DATA.compare.media[sides[i].entry.image];
      image.alt = describe(sample, sides[i]);
      this.labels[i].replaceChildren(...caption(sides[i]));
    });
    const row = (title, value) => h('tr', {}, h('th', {scope: 'row'}, title),
      ...sides.map((side) => h('td', {}, value(side))));
    this.facts.replaceChildren(
      h('thead', {}, h('tr', {}, h('td'), ...sides.map(({codec}) => h('th', {scope: 'col'},
        marked(codec))))),
      h('tbody', {}, row('Bytes', ({entry}) => entry.bytes.toLocaleString('en-US')),
        ...DATA.metrics.map(({name, decimals}) => row(name, ({codec, entry}) => (
          codec === null ? '' : fixed(entry.quality[name], decimals))))));
  }

  /** Where the crops look: a box in fractions of the picture. */
  outline(left, top, width, height) {
    Object.assign(this.window.style, {left: `${left * 100}%`, top: `${top * 100}%`,
      width: `${width * 100}%`, height: `${height * 100}%`});
  }
}

/** The same small piece of every picture, side by side, enlarged by whole factors. */
class Crops {
  constructor(moved) {
    this.moved = moved;
    this.centre = [0.5, 0.5];
    this.scale = 1;
    this.element = h('div', {class: 'crops'});
    new ResizeObserver(() => this.place()).observe(this.element);
  }

  show(sample, sides) {
    this.sample = sample;
    this.views = sides.map((side) => {
      const image = h('img', {src: DATA.compare.media[side.entry.image], draggable: 'false',
        alt: `Crop: ${describe(sample, side)}`});
      const view = h('div', {class: 'crop', tabindex: 0, role: 'group',
        'aria-label': 'Crop; arrow keys move all crops', onkeydown: (event) => this.key(event)}, image);
      this.draggable(view);
      return {view, image, side};
    });
    this.element.replaceChildren(...this.views.map(({view, side}) => h('figure', {}, view,
      h('figcaption', {}, ...caption(side)))));
    this.place();
  }

  draggable(view) {
    let from = null;
    view.addEventListener('pointerdown', (event) => {
      view.setPointerCapture(event.pointerId);
      from = [event.clientX, event.clientY];
    });
    view.addEventListener('pointermove', (event) => {
      if (!from || !view.hasPointerCapture(event.pointerId)) return;
      this.shift(from[0] - event.clientX, from[1] - event.clientY);
      from = [event.clientX, event.clientY];
    });
  }

  key(event) {
    const step = {ArrowRight: [16, 0], ArrowLeft: [-16, 0], ArrowDown: [0, 16],
      ArrowUp: [0, -16]}[event.key];
    if (!step) return;
    event.preventDefault();
    this.shift(...step);
  }

  shift(x, y) {
    this.look(this.centre[0] + x / this.scale / this.sample.width,
      this.centre[1] + y / this.scale / this.sample.height);
  }

  look(x, y) {
    this.centre = [x, y];
    this.place();
  }

  zoom(scale) {
    this.scale = scale;
    this.place();
  }

  place() {
    if (!this.sample || !this.views[0].view.clientWidth) return;
    const side = this.views[0].view.clientWidth / this.scale;
    const {width, height} = this.sample;
    const inside = (centre, length) => (side >= length ? 0.5
      : clamp(centre, side / 2 / length, 1 - side / 2 / length));
    this.centre = [inside(this.centre[0], width), inside(this.centre[1], height)];
    const left = Math.round(this.centre[0] * width - side / 2);
    const top = Math.round(this.centre[1] * height - side / 2);
    for (const {image} of this.views) {
      image.style.width = `${width * this.scale}px`;
      image.style.transform = `translate(${-left * this.scale}px, ${-top * this.scale}px)`;
    }
    this.moved(Math.max(0, left / width), Math.max(0, top / height), Math.min(1, side / width),
      Math.min(1, side / height));
  }
}
