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
    const audio = h('audio', {controls: true, preload: 'metadata',
      'aria-label': describe(sample, side), src: DATA.compare.media[side.entry.sound]});
    const picture = h('img', {src: DATA.compare.media[side.entry.image], draggable: 'false',
      alt: `Spectrogram: ${describe(sample, side)}`});
    const cursor = h('div', {class: 'cursor'});
    const spectrogram = h('div', {class: 'spectrogram', onclick: (event) => {
      const box = picture.getBoundingClientRect();
      audio.currentTime = clamp((event.clientX - box.left) / box.width, 0, 1) * sample.seconds;
    }}, picture, cursor, h('span', {class: 'scale top'}, `${short(sample.sample_rate / 2000)} kHz`),
    h('span', {class: 'scale bottom'}, `0 to ${short(sample.seconds)} s`));
    const follow = () => {
      cursor.style.left = `${clamp(audio.currentTime / sample.seconds, 0, 1) * 100}%`;
      if (!audio.paused) requestAnimationFrame(follow);
    };
    audio.addEventListener('timeupdate', follow);
    audio.addEventListener('play', () => {
      this.takeOver(audio);
      follow();
    });
    return h('figure', {class: 'player'}, h('figcaption', {}, ...caption(side)), spectrogram, audio);
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
