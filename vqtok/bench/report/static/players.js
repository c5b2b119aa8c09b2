// Sounds: a player with its spectrogram for the original and for every codec.
class Players {
  constructor() {
    this.element = h('div', {class: 'players'});
    this.last = null;
  }

  show(sample, sides) {
    this.last = null;
    this.element.replaceChildren(...sides.map((side) => this.player(sample, side)));
  }

  player(sample, side) {
    const what = describe(sample, side);
    const audio = h('audio', {preload: 'auto', src: DATA.compare.media[side.entry.sound]});
    const picture = h('img', {src: DATA.compare.media[side.entry.image], draggable: 'false',
      alt: `Spectrogram: ${what}`});
    const cursor = h('div', {class: 'cursor'});
    const button = h('button', {type: 'button', class: 'play', 'aria-label': `Play ${what}`,
      onclick: () => (audio.paused ? audio.play() : audio.pause())});
    const position = h('input', {type: 'range', min: 0, max: sample.seconds, step: 0.01, value: 0,
      'aria-label': `Position in ${what}`, oninput: () => {
        audio.currentTime = Number(position.value);
      }});
    const clock = h('span', {class: 'clock'});
    const follow = () => {
      const time = Math.min(audio.currentTime, sample.seconds);
      cursor.style.left = `${(time / sample.seconds) * 100}%`;
      position.value = time;
      clock.textContent = `${fixed(time, 1)} / ${fixed(sample.seconds, 1)} s`;
      button.textContent = audio.paused ? 'Play' : 'Pause';
      if (!audio.paused) requestAnimationFrame(follow);
    };
    for (const event of ['timeupdate', 'pause', 'ended', 'seeked']) {
      audio.addEventListener(event, follow);
    }
    audio.addEventListener('play', () => {
      this.takeOver(audio);
      follow();
    });
    follow();
    const spectrogram = h('div', {class: 'spectrogram', onclick: (event) => {
      const box = picture.getBoundingClientRect();
      audio.currentTime = clamp((event.clientX - box.left) / box.width, 0, 1) * sample.seconds;
    }}, picture, cursor, h('span', {class: 'scale'}, `${short(sample.sample_rate / 2000)} kHz`));
    return h('figure', {class: 'player'}, h('figcaption', {}, ...caption(side)), spectrogram,
      h('div', {class: 'transport'}, button, position, clock), audio);
  }

  /** One player at a time; the next one goes on where the one before was. */
  takeOver(audio) {
    if (this.last && this.last !== audio && !this.last.ended) {
      const playing = !this.last.paused;
      this.last.pause();
      if (playing) audio.currentTime = this.last.currentTime;
    }
    this.last = audio;
  }
}
