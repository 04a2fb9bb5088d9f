// Charts of Chart.js (the system's package, served as /chart.js) in the page's own colours. Each is a
// figure with a caption that says what it shows, and a text for those who cannot see it. A chart
// follows the theme, and ends with the page's AbortSignal.
import {computedColour} from './colours.js';
import {h, replace} from './dom.js';
import {integer, real} from './format.js';

const ticks = new Intl.NumberFormat('en', {maximumFractionDigits: 3});

let asked = null;
function chartJs() {
  asked ??= new Promise((resolve, reject) => {
    const script = document.createElement('script');
    script.src = '/chart.js';
    script.addEventListener('load', () => resolve(window.Chart));
    script.addEventListener('error', () => {
      asked = null;
      reject(new Error('Chart.js is not there: install the package libjs-chart.js.'));
    });
    document.head.append(script);
  });
  return asked;
}

// The colour of one line of a chart that has no memory's colour: the page's palette in order.
const kSeries = ['m0', 'm1', 'm2', 'm3', 'm5', 'm6', 'm4', 'm9'];
const kDashes = [[], [6, 3], [2, 2], [8, 3, 2, 3]];
export function seriesStyle(index) {
  return {colour: () => computedColour('--memory', kSeries[index % kSeries.length]),
    dash: kDashes[index % kDashes.length]};
}

// A vertical line at `chart.options.cursorAt`: the step that is looked at.
const cursorPlugin = {
  id: 'cursor',
  afterDatasetsDraw(chart) {
    const at = chart.options.cursorAt;
    if (at === null || at === undefined) return;
    const x = chart.scales.x.getPixelForValue(at);
    const {ctx, chartArea} = chart;
    if (x < chartArea.left || x > chartArea.right) return;
    ctx.save();
    ctx.strokeStyle = computedColour('--accent');
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    ctx.moveTo(x, chartArea.top);
    ctx.lineTo(x, chartArea.bottom);
    ctx.stroke();
    ctx.restore();
  },
};

function axis(given, dim, line) {
  return {
    type: 'linear',
    title: {display: Boolean(given.title), text: given.title, color: dim},
    offset: given.offset ?? false,
    ticks: {color: dim, maxRotation: 0, autoSkipPadding: 12, align: given.offset ? 'center' : 'inner',
      callback: given.format ?? ((v) => ticks.format(v)), ...given.ticks},
    grid: {color: line, drawTicks: false},
    min: given.min,
    max: given.max,
    afterFit: given.width ? (scale) => {
      scale.width = given.width;
    } : undefined,
  };
}

// Colours are functions (the theme may change); Chart.js gets what they return now.
function datasetOf(series, index) {
  const style = seriesStyle(index);
  const colour = (series.colour ?? style.colour)();
  return {
    type: series.type,
    label: series.name,
    data: series.points,
    borderColor: colour,
    backgroundColor: colour,
    pointBackgroundColor: series.colours ? series.colours() : colour,
    borderDash: series.dash ?? (series.type === 'line' ? style.dash : []),
    borderWidth: series.type === 'line' ? 1.5 : 0,
    pointRadius: series.radius ?? 0,
    pointStyle: series.shape ?? 'circle',
    pointBorderColor: colour,
    pointBorderWidth: series.stroke ?? 0,
    pointHitRadius: 6,
    barPercentage: 1,
    categoryPercentage: 1,
    maxBarThickness: 28,
    spanGaps: true,
    order: series.order ?? 0,
  };
}

// given: {
//   caption, size: "small" | "tall", cursorAt,
//   series: [{name, type: line | bar | scatter, points: [{x, y}], colour, dash, radius, ...}],
//   x: {title, name (in the tooltip), format, min, max, ticks}, y: {the same, width},
//   tooltip(series index, point index) -> text, pick(series index, point index, x)}
// Returns {node, update(series), cursor(x), range(min, max)}.
export function chart(given, signal) {
  const canvas = h('canvas', {role: 'img'});
  const box = h('div', {class: `chart ${given.size ?? ''}`}, canvas);
  const node = h('figure', {}, h('figcaption', {}, given.caption), box);
  let made = null, {series, cursorAt = null} = given;

  function describe() {
    const ends = series.filter((s) => s.points.length).map((s) => s.type === 'scatter'
      ? `${s.name}: ${s.points.length} points` : `${s.name}: ${real(s.points.at(-1).y)} at the end`);
    canvas.setAttribute('aria-label', `${given.caption}. ${ends.join('; ')}`);
  }

  function options() {
    const [dim, line, text, panel] = ['--dim', '--line', '--text', '--raised'].map((name) =>
      computedColour(name));
    return {
      animation: false,
      parsing: false,
      normalized: true,
      responsive: true,
      maintainAspectRatio: false,
      cursorAt,
      interaction: given.pick || given.series[0]?.type === 'scatter'
        ? {mode: given.near ?? 'nearest', axis: given.near === 'index' ? 'x' : 'xy', intersect: false}
        : {mode: 'index', intersect: false},
      scales: {x: axis(given.x, dim, line), y: axis(given.y, dim, line)},
      plugins: {
        legend: {display: series.length > 1, align: 'start',
          labels: {color: text, boxWidth: 22, boxHeight: 2, font: {size: 12}}},
        decimation: {enabled: series.every((s) => s.type === 'line'), algorithm: 'min-max'},
        tooltip: {backgroundColor: panel, titleColor: text, bodyColor: text, borderColor: line,
          borderWidth: 1, callbacks: {
            title: (items) => items.length && given.x.name
              ? `${given.x.name} ${(given.x.format ?? integer)(items[0].parsed.x)}` : '',
            ...(given.tooltip ? {title: () => '', label: (item) =>
              given.tooltip(item.datasetIndex, item.dataIndex)} : {})}},
      },
      onClick: (event, items, chart) => {
        if (!given.pick) return;
        const x = chart.scales.x.getValueForPixel(event.x);
        given.pick(items[0]?.datasetIndex, items[0]?.index, x);
      },
    };
  }

  function draw() {
    if (!made) return;
    made.options = options();
    made.data.datasets = series.map(datasetOf);
    made.update('none');
    describe();
  }

  chartJs().then((Chart) => {
    if (signal.aborted) return;
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    made = new Chart(canvas, {type: series[0]?.type ?? 'line', data: {datasets: []}, options: options(),
      plugins: [cursorPlugin]});
    draw();
    document.addEventListener('themechange', draw, {signal});
    signal.addEventListener('abort', () => made.destroy());
  }).catch((error) => {
    if (!signal.aborted) replace(box, h('p', {class: 'dim'}, error.message));
  });

  return {
    node,
    range(min, max) {
      Object.assign(given.x, {min, max});
      draw();
    },
    update(next) {
      series = next;
      draw();
    },
    cursor(at) {
      cursorAt = at;
      if (!made) return;
      made.options.cursorAt = at;
      made.draw();
    },
  };
}
