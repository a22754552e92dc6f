'use strict';
// Toggles, tooltips and zoom. Reads the charts that scoring/page/svg.py and charts.py wrote: data
// ranges on the outer <svg>, lines as 'M x y l dx dy ...' in the inner one's coordinates.
(() => {
  const SVG = 'http://www.w3.org/2000/svg';
  const REACH_PX = 60; // how far from a line the pointer may be
  const DRAG_PX = 6; // shorter drags are clicks
  const MAX_ZOOM = 400;
  const MINUS = '\u2212';

  document.documentElement.classList.add('js');
  const tip = document.createElement('div');
  tip.className = 'tip';
  tip.setAttribute('role', 'status');
  tip.hidden = true;
  document.body.append(tip);

  function make(tag, attributes, text) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // Round values between two ends, about `most` of them; the same as svg.ticks.
  function ticks(low, high, most) {
    const rough = (high - low) / Math.max(1, most);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((m) => m * power >= 0.999 * rough) * power;
    const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const large = Math.max(Math.abs(low), Math.abs(high)) >= 1e6;
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i <= Math.floor(high / step + 1e-9); i += 1) {
      const text = large || decimals > 6 ? (i * step).toExponential(2) : (i * step).toFixed(decimals);
      found.push([i * step, text.replaceAll('-', MINUS)]);
    }
    return found;
  }

  // The points of a path, a list of them for each part that starts with M.
  function parse(d, shift) {
    const parts = [];
    for (const piece of d.split('M').slice(1)) {
      const [start, steps = ''] = piece.split(/[lh]/);
      let [x, y] = numbersIn(start);
      y += shift;
      const points = [[x, y]];
      const deltas = piece.includes('l') ? numbersIn(steps) : [];
      for (let i = 0; i + 1 < deltas.length; i += 2) {
        x += deltas[i];
        y += deltas[i + 1];
        points.push([x, y]);
      }
      parts.push(points);
    }
    return parts;
  }

  // Ten to a power with two significant digits; the same as svg.power.
  function power(logarithm) {
    return (10 ** logarithm).toExponential(1).replace('.0e', 'e').replace('e+', 'e')
      .replaceAll('-', MINUS);
  }

  const numbersIn = (text) => (text.match(/-?\d+/g) || []).map(Number);

  function shown(value, range, steps) {
    const decimals = Math.min(9, Math.max(0, Math.ceil(-Math.log10(Math.abs(range) / steps))));
    const options = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
    return value.toLocaleString('en', options);
  }

  class Chart {
    constructor(svg, labels) {
      this.svg = svg;
      this.labels = labels;
      this.plot = svg.querySelector('.plot');
      this.box = Object.fromEntries(
        ['x', 'y', 'width', 'height'].map((name) => [name, Number(this.plot.getAttribute(name))]),
      );
      [, , this.wide, this.high] = this.plot.getAttribute('viewBox').split(' ').map(Number);
      this.x = svg.dataset.x.split(' ').map(Number);
      this.y = svg.dataset.y.split(' ').map(Number);
      this.view = [0, 0, this.wide, this.high];
      this.curves = null;
      this.listen();
      this.addTools();
    }

    listen() {
      const { svg } = this;
      svg.tabIndex = 0;
      svg.addEventListener('pointermove', (event) => this.move(event));
      svg.addEventListener('pointerleave', () => this.point(null));
      svg.addEventListener('pointerdown', (event) => {
        if (event.button === 0 && event.pointerType !== 'touch') this.start = this.at(event);
      });
      svg.addEventListener('pointerup', (event) => this.drop(event));
      svg.addEventListener('pointercancel', () => this.endDrag());
      svg.addEventListener('dblclick', () => this.reset());
      svg.addEventListener('keydown', (event) => this.key(event));
      svg.addEventListener('wheel', (event) => {
        if (!event.ctrlKey && !event.metaKey) return; // a plain wheel scrolls the page
        event.preventDefault();
        const at = this.at(event);
        this.zoom(event.deltaY < 0 ? 1.25 : 0.8, at.x, at.y);
      }, { passive: false });
    }

    addTools() {
      const tools = document.createElement('div');
      tools.className = 'tools';
      const { w, metric, axis } = this.svg.dataset;
      const of = w ? `${metric} on ${w} against ${axis}` : 'profiles';
      for (const [text, name, act] of [
        ['+', 'zoom in', () => this.zoom(1.6)],
        [MINUS, 'zoom out', () => this.zoom(1 / 1.6)],
        ['reset', 'reset zoom', () => this.reset()],
      ]) {
        const button = document.createElement('button');
        button.type = 'button';
        button.textContent = text;
        button.setAttribute('aria-label', `${name}: ${of}`);
        button.addEventListener('click', act);
        tools.append(button);
      }
      this.svg.closest('figure').append(tools);
    }

    // Where an event is: in pixels from the chart's corner, and in the plot's coordinates.
    at(event) {
      const rect = this.svg.getBoundingClientRect();
      this.scale = rect.width / this.svg.viewBox.baseVal.width;
      const u = (event.clientX - rect.left) / this.scale;
      const v = (event.clientY - rect.top) / this.scale;
      const [left, top, width, height] = this.view;
      return {
        u,
        v,
        x: left + (width * (u - this.box.x)) / this.box.width,
        y: top + (height * (v - this.box.y)) / this.box.height,
        inside: u >= this.box.x && u <= this.box.x + this.box.width
          && v >= this.box.y && v <= this.box.y + this.box.height,
      };
    }

    move(event) {
      const at = this.at(event);
      if (this.start) {
        this.drag(at);
        this.point(null);
        return;
      }
      const near = at.inside ? this.nearest(at) : null;
      this.point(near);
      if (near) this.tell(near, event);
    }

    drag(at) {
      const { start } = this;
      this.rubber ??= this.svg.appendChild(make('rect', { class: 'rubber' }));
      const facts = {
        x: Math.min(at.u, start.u),
        y: Math.min(at.v, start.v),
        width: Math.abs(at.u - start.u),
        height: Math.abs(at.v - start.v),
      };
      for (const [name, value] of Object.entries(facts)) this.rubber.setAttribute(name, value);
    }

    drop(event) {
      const { start } = this;
      this.endDrag();
      if (!start) return;
      const end = this.at(event);
      const far = (a, b) => Math.abs(a - b) * this.scale > DRAG_PX;
      const [across, down] = [far(start.u, end.u), far(start.v, end.v)];
      if (!across && !down) return;
      const [left, top, width, height] = this.view;
      const [x0, x1] = across ? [start.x, end.x].sort((a, b) => a - b) : [left, left + width];
      const [y0, y1] = down ? [start.y, end.y].sort((a, b) => a - b) : [top, top + height];
      this.show(x0, y0, x1 - x0, y1 - y0);
    }

    endDrag() {
      this.rubber?.remove();
      this.start = this.rubber = null;
    }

    key(event) {
      const [left, top, width, height] = this.view;
      const zoomed = width < this.wide || height < this.high;
      const pans = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === '+' || event.key === '=') this.zoom(1.6);
      else if (event.key === '-') this.zoom(1 / 1.6);
      else if (event.key === '0' || (event.key === 'Escape' && zoomed)) this.reset();
      else if (event.key in pans && zoomed) {
        const [dx, dy] = pans[event.key];
        this.show(left + (dx * width) / 5, top + (dy * height) / 5, width, height);
      } else return;
      event.preventDefault();
    }

    zoom(by, x, y) {
      const [left, top, width, height] = this.view;
      const [cx, cy] = x === undefined ? [left + width / 2, top + height / 2] : [x, y];
      this.show(cx - (cx - left) / by, cy - (cy - top) / by, width / by, height / by);
    }

    reset() { this.show(0, 0, this.wide, this.high); }

    // Show a part of the plot, kept inside the whole of it.
    show(x, y, width, height) {
      const w = Math.min(this.wide, Math.max(this.wide / MAX_ZOOM, width));
      const h = Math.min(this.high, Math.max(this.high / MAX_ZOOM, height));
      const left = Math.min(this.wide - w, Math.max(0, x));
      const top = Math.min(this.high - h, Math.max(0, y));
      this.view = [left, top, w, h];
      this.plot.setAttribute('viewBox', this.view.join(' '));
      this.point(null);
      this.drawGrid();
    }

    dataX(x) { return this.x[0] + ((this.x[1] - this.x[0]) * x) / this.wide; }

    dataY(y) { return this.y[1] - ((this.y[1] - this.y[0]) * y) / this.high; }

    drawGrid() {
      const { x: left, y: top, width, height } = this.box;
      const [vx, vy, vw, vh] = this.view;
      const [x0, x1, y0, y1] = [
        this.dataX(vx), this.dataX(vx + vw), this.dataY(vy + vh), this.dataY(vy),
      ];
      const parts = [];
      for (const [value, text] of ticks(x0, x1, width / 75)) {
        const at = left + (width * (value - x0)) / (x1 - x0);
        parts.push(make('path', { d: `M${at} ${top}V${top + height}` }));
        parts.push(make('text', { x: at, y: top + height, dy: '1.3em', class: 'tx' }, text));
      }
      for (const [value, text] of ticks(y0, y1, height / 45)) {
        const at = top + (height * (y1 - value)) / (y1 - y0);
        parts.push(make('path', { d: `M${left} ${at}H${left + width}` }));
        const label = this.svg.dataset.log ? power(value) : text;
        parts.push(make('text', { x: left, y: at, dx: '-.5em', dy: '.35em', class: 'ty' }, label));
      }
      this.svg.querySelector('.grid').replaceChildren(...parts);
    }

    read() {
      const drawn = this.plot.querySelectorAll('g[data-s] path:not(.hit):not(.band)');
      return [...drawn].map((path) => {
        const group = path.parentNode;
        const shift = numbersIn(group.getAttribute('transform') || '0 0')[1];
        const hits = new Set();
        for (const hit of group.querySelectorAll('.hit')) {
          hits.add(numbersIn(hit.getAttribute('d')).slice(0, 2).join());
        }
        return { path, group, shift, hits, parts: parse(path.getAttribute('d'), shift) };
      });
    }

    // The visible line nearest to the pointer, and the point on it that is told.
    nearest(at) {
      this.curves ??= this.read();
      const [, , width, height] = this.view;
      const kx = (this.box.width * this.scale) / width;
      const ky = (this.box.height * this.scale) / height;
      let best = null;
      for (const curve of this.curves) {
        if (curve.group.classList.contains('off')) continue;
        for (const points of curve.parts) {
          for (let i = 0; i < points.length; i += 1) {
            const [a, b] = [points[i], points[Math.min(i + 1, points.length - 1)]];
            const [dx, dy] = [(b[0] - a[0]) * kx, (b[1] - a[1]) * ky];
            const [px, py] = [(at.x - a[0]) * kx, (at.y - a[1]) * ky];
            const share = Math.min(1, Math.max(0, (px * dx + py * dy) / (dx * dx + dy * dy || 1)));
            const away = Math.hypot(px - share * dx, py - share * dy);
            if (away < REACH_PX && (!best || away < best.away)) best = { curve, a, b, share, away };
          }
        }
      }
      if (!best) return null;
      const { a, b, share } = best;
      const stepwise = this.svg.dataset.kind === 'profile';
      best.spot = stepwise
        ? [a[0] + share * (b[0] - a[0]), share < 0.5 ? a[1] : b[1]]
        : share < 0.5 ? a : b;
      return best;
    }

    // Mark a point, or none.
    point(near) {
      this.hot?.classList.remove('hot');
      this.probe?.remove();
      tip.hidden = true;
      if (!near) return;
      this.hot = near.curve.path;
      this.hot.classList.add('hot');
      const [x, y] = near.spot;
      this.probe = this.plot.appendChild(make('path', { class: 'probe', d: `M${x} ${y}h0` }));
    }

    tell(near, event) {
      const { svg } = this;
      const { curve, spot } = near;
      const [x, y] = [this.dataX(spot[0]), this.dataY(spot[1] - curve.shift)];
      const lines = [this.labels[Number(curve.group.dataset.s)]];
      if (svg.dataset.kind === 'profile') {
        lines.push(`within ${x.toFixed(2)}\u00d7 of the fastest`);
        lines.push(`on ${Math.round(10 * y) / 10} % of the workloads`);
      } else {
        const [rangeX, rangeY] = [this.x[1] - this.x[0], this.y[1] - this.y[0]];
        const seconds = Number(svg.dataset.seconds);
        const value = svg.dataset.log ? power(y) : shown(y, rangeY, this.high);
        const inUnit = `${shown(x, rangeX, this.wide)} ${svg.dataset.unit}`;
        const inSeconds = `${shown(x * seconds, rangeX * seconds, this.wide)} s`;
        lines.push(`${svg.dataset.w}, ${curve.path.dataset.l}`);
        if (svg.dataset.axis === 'steps') lines.push(`step ${Math.round(x).toLocaleString('en')}`);
        else lines.push(seconds === 1 ? inSeconds : `${inUnit} (${inSeconds})`);
        lines.push(`${svg.dataset.metric} ${value}`);
        if (curve.hits.has(spot.join())) lines.push('meets the target here');
      }
      tip.textContent = lines.join('\n');
      tip.hidden = false;
      const { width, height } = tip.getBoundingClientRect();
      const room = document.documentElement.clientWidth;
      const above = event.clientY - height - 16;
      tip.style.left = `${Math.max(4, Math.min(event.clientX + 16, room - width - 8))}px`;
      tip.style.top = `${above > 4 ? above : event.clientY + 20}px`;
    }
  }

  function press(button, pool, on) {
    button.setAttribute('aria-pressed', String(on));
    for (const group of pool.querySelectorAll(`.plot g[data-s="${button.dataset.toggle}"]`)) {
      group.classList.toggle('off', !on);
    }
  }

  for (const pool of document.querySelectorAll('.pool')) {
    const buttons = [...pool.querySelectorAll('button[data-toggle]')];
    const labels = buttons.map((button) => button.textContent.trim());
    for (const button of buttons) {
      button.addEventListener('click', () => {
        press(button, pool, button.getAttribute('aria-pressed') !== 'true');
      });
    }
    for (const svg of pool.querySelectorAll('svg.chart')) new Chart(svg, labels);
  }

  // Tables that are wider than the screen say so.
  const watched = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const wide = target.scrollWidth > target.clientWidth + 1;
      if (!target.hint) {
        target.hint = document.createElement('p');
        target.hint.className = 'hint';
        target.hint.textContent = 'more columns: scroll sideways \u2192';
        target.before(target.hint);
      }
      target.hint.hidden = !wide;
    }
  });
  for (const scroll of document.querySelectorAll('.scroll')) watched.observe(scroll);

  let opened = [];
  window.addEventListener('beforeprint', () => {
    opened = [...document.querySelectorAll('details:not([open])')];
    for (const details of opened) details.open = true;
  });
  window.addEventListener('afterprint', () => {
    for (const details of opened) details.open = false;
  });
})();
