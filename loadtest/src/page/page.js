'use strict';
// Draws a report of the load tester from its JSON. Texts of the report reach the page as text only.
const report = JSON.parse(document.getElementById('report').textContent);
const main = document.querySelector('main');
const SVG = 'http://www.w3.org/2000/svg';
const MIB = 1048576;

/** An element with attributes and children; texts stay texts. */
function make(tag, attributes = {}, ...children) {
  const isSvg = ['svg', 'rect', 'path', 'line', 'text', 'circle', 'title'].includes(tag);
  const element = isSvg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}
const add = (...parts) => main.append(...parts.filter(part => part));
const grouped = value => Math.round(value).toLocaleString('en-US');
const fixed = digits => value => value.toFixed(digits);
const over = (spread, unit) => ({ median: spread.median / unit, min: spread.min / unit, max: spread.max / unit });

/** The figures of a series: name in the JSON, head of its column, how it is shown. */
const FIGURES = [
  ['rows_per_second', 'median of rows/s', grouped],
  ['acked_rows_per_second', 'acked/s', grouped],
  ['service_cpu_us_per_row', 'service', fixed(2)],
  ['postgres_cpu_us_per_row', 'postgres', fixed(2)],
  ['client_cpu_us_per_row', 'client', fixed(2)],
  ['wal_bytes_per_row', 'WAL B', fixed(0)],
  ['service_peak_bytes', 'MiB', value => fixed(0)(value / MIB)],
  ['p50_ms', 'p50 ms', fixed(1)],
  ['p99_ms', 'p99 ms', fixed(1)],
  ['p99.9_ms', 'p99.9 ms', fixed(1)],
];
const show = (name, value) => FIGURES.find(([figure]) => figure === name)[2](value);

const text = (kind, x, y, words) => make('text', { class: kind, x, y }, words);

/**
 * Bars `{name, parts: [[class, value]], spread?, label}`; with `target` they are multiples of 1, which is
 * a line through all of them. Every number that is drawn stands next to its bar, too.
 */
function bars(title, list, target) {
  if (!list.length) return null;
  const [left, right, row, thick, pad] = [290, 790, 34, 18, 8];
  const end = bar => (bar.spread ? bar.spread.max : bar.parts.reduce((sum, [, value]) => sum + value, 0));
  let most = Math.max(...list.map(end));
  // A figure far beyond its target must not squeeze the others.
  most = target ? Math.min(Math.max(most, 1.25), 3) : most || 1;
  const x = value => left + (right - left) * Math.min(Math.max(value / most, 0), 1);
  const height = 2 * pad + list.length * row;
  const svg = make('svg', { viewBox: `0 0 960 ${height}`, role: 'img', 'aria-label': title },
    make('line', { class: 'axis', x1: left, x2: left, y1: 0, y2: height }));
  list.forEach((bar, at) => {
    const middle = pad + at * row + row / 2;
    svg.append(text('name', left - 12, middle, bar.name));
    let from = 0;
    for (const [kind, value] of bar.parts) {
      const [a, b] = [x(from), x(from + value)];
      svg.append(make('rect', { class: kind, x: a, y: middle - thick / 2, width: b - a, height: thick, rx: 2 }));
      if (bar.parts.length > 1 && b - a > 38) svg.append(text(`inside on-${kind}`, (a + b) / 2, middle, fixed(1)(value)));
      from += value;
    }
    const [low, high] = bar.spread ? [x(bar.spread.min), x(bar.spread.max)] : [0, 0];
    if (high - low >= 1) {
      const [top, bottom] = [middle - 5, middle + 5];
      svg.append(make('path', { class: 'whisker', d: `M${low} ${top}V${bottom}M${low} ${middle}H${high}M${high} ${top}V${bottom}` }));
    }
    svg.append(text('number', (target ? right : x(end(bar))) + 10, middle, bar.label));
  });
  if (target) svg.append(make('line', { class: 'target', x1: x(1), x2: x(1), y1: pad, y2: height - 4 }, make('title', {}, target)));
  return svg;
}

/** Lines `{name, values, kind}` over ticks, on a logarithmic scale of milliseconds. */
function lines(title, ticks, list) {
  if (!list.length) return null;
  const [left, right, top, bottom] = [80, 640, 24, 290];
  const all = list.flatMap(line => line.values.map(value => Math.max(value, 0.01)));
  const low = Math.floor(Math.log10(Math.min(...all)));
  const high = Math.max(Math.ceil(Math.log10(Math.max(...all))), low + 1);
  const y = value => bottom - (bottom - top) * (Math.log10(Math.max(value, 0.01)) - low) / (high - low);
  const x = at => left + (right - left) * (at + 0.5) / ticks.length;
  const svg = make('svg', { viewBox: '0 0 960 340', role: 'img', 'aria-label': title });
  for (let power = low; power <= high; power++) {
    const at = y(10 ** power);
    svg.append(make('line', { class: 'grid', x1: left, x2: right, y1: at, y2: at }), text('name', left - 12, at, `${+(10 ** power).toPrecision(1)} ms`));
  }
  ticks.forEach((tick, at) => svg.append(text('tick', x(at), bottom + 26, tick)));
  let free = -Infinity;
  const last = line => y(line.values[line.values.length - 1]);
  for (const line of [...list].sort((a, b) => last(a) - last(b))) {
    const d = line.values.map((value, at) => `${at ? 'L' : 'M'}${x(at)} ${y(value)}`).join('');
    svg.append(make('path', { class: `line ${line.kind}`, d }));
    line.values.forEach((value, at) => svg.append(
      make('circle', { class: `dot ${line.kind}`, cx: x(at), cy: y(value), r: 4 }), text('tick', x(at), y(value) - 12, fixed(1)(value))));
    // Names at the same height are moved apart.
    const place = Math.max(last(line), free);
    free = place + 22;
    svg.append(text(`legend ${line.kind}`, right + 16, place, line.name));
  }
  return svg;
}

function figure(caption, svg, keys = []) {
  if (!svg) return null;
  const key = ([colour, words]) => make('span', { style: `--c:var(${colour})` }, words);
  const box = keys.length ? make('div', { class: 'keys' }, ...keys.map(key)) : null;
  return make('figure', {}, make('figcaption', {}, caption), box, svg);
}
/** A heading and what is below it; nothing where there is nothing to show. */
const part = (title, ...figures) => figures.some(one => one) && add(make('h2', {}, title), ...figures);
const tiles = list => list.length && add(make('div', { class: 'tiles' },
  ...list.map(([kind, number, words]) => make('div', { class: `tile ${kind}` }, make('b', {}, number), words))));
function table(rows) {
  const row = (cells, at) => make('tr', {}, ...cells.map(cell => make(at ? 'td' : 'th', {}, `${cell ?? '-'}`)));
  return make('div', { class: 'scroll' }, make('table', {}, ...rows.map(row)));
}
function head(title, lead, soft) {
  document.title = title;
  add(make('h1', {}, title), make('p', { class: 'lead' }, lead), make('p', { class: 'soft' }, soft));
}
const versions = () => Object.entries(report.versions).map(([name, version]) => `${name} ${version ?? 'unknown'}`).join(', ');
const PERCENTILES = ['p50', 'p90', 'p99', 'p99.9', 'max'];
const latencyLine = (name, latency, kind) => latency && { name, kind, values: PERCENTILES.map(at => latency[at]) };

function comparison() {
  const sections = report.sections;
  const find = id => sections.flatMap(section => section.series).find(series => series.id === id);
  const [http, copy] = [find('interactions/http_durable_100'), find('interactions/copy_binary')];
  const pairs = http && copy ? http.rounds.map((round, at) => round.rows_per_second / copy.rounds[at].rows_per_second).sort((a, b) => a - b) : [];
  const middle = (pairs[(pairs.length - 1) >> 1] + pairs[pairs.length >> 1]) / 2;
  head(pairs.length ? `HTTP at ${middle.toFixed(2)} times the rate of binary COPY` : 'How recsys-ingest grows', report.summary,
    `Bars are medians, whiskers the least and the most of all rounds. Ratios pair loads of the same round. Rates count until the last row is committed. ${report.began_at}.`);
  const met = report.targets.filter(target => target.met).length;
  const median = (id, name) => find(id)?.[name]?.median;
  tiles([
    report.targets.length && [met === report.targets.length ? 'good' : 'bad', `${met} of ${report.targets.length}`, 'targets are met'],
    ...['interactions', 'exposures'].map(events => median(`${events}/http_durable_100`, 'rows_per_second') &&
      ['', grouped(median(`${events}/http_durable_100`, 'rows_per_second')), `${events} a second over HTTP, committed`]),
    median('interactions/half_rate_durable', 'p99_ms') &&
      ['', `${fixed(1)(median('interactions/half_rate_durable', 'p99_ms'))} ms`, 'p99 of a durable answer at half the held rate'],
  ].filter(tile => tile));
  const judged = (isLeast, caption) => figure(caption, bars(caption, report.targets.filter(target => (target.unit === 'ratio') === isLeast).map(target => {
    const unit = target.unit === 'ratio' ? value => `${fixed(2)(value)} ×` : value => `${fixed(target.unit === 'ms' ? 1 : 0)(value)} ${target.unit}`;
    const spread = over(target.measured, target.target);
    return { name: target.title, parts: [[target.met ? 'good' : 'bad', spread.median]], spread,
      label: `${unit(target.measured.median)} (${target.sign} ${unit(target.target)})` };
  }), 'target'));
  part('Targets', judged(true, `Rates of ${report.where_nothing_else}: a bar that reaches the dashed line is at least as fast as its target.`),
    judged(false, 'Latency and memory: a bar that stays before the dashed line is as low as its target.'));
  const isGrowth = section => section.series.every(series => series.id.startsWith('growth/'));
  const isSingle = series => /\/(http_durable_1|empty_handler)$/.test(series.id);
  const isPaced = series => series.id.includes('/half_rate_');
  const kindOf = (section, single) => section.series.filter(series => !isPaced(series) && (single === undefined || isSingle(series) === single));
  const ofFigure = (list, name, unit) => list.filter(series => series[name]).map(series => {
    const kind = series.id.includes('/http_') || series.id.startsWith('growth') ? 'ours' : 'theirs';
    const spread = name === 'service_peak_bytes' ? over(series[name], MIB) : series[name];
    return { name: series.title, parts: [[kind, spread.median]], spread, label: show(name, series[name].median) + unit };
  });
  const drawn = (caption, list, keys) => figure(caption, bars(caption, list), keys);
  for (const section of sections) {
    const keys = isGrowth(section) ? [] : [['--ours', 'recsys-ingest'], ['--theirs', 'without it']];
    part(`${section.title}: rate`,
      drawn('Rows a second, until the last one is committed.', ofFigure(kindOf(section, false), 'rows_per_second', ''), keys),
      drawn("Requests of a single event a second; the service's until the last event is committed.", ofFigure(kindOf(section, true), 'rows_per_second', ''), keys));
  }
  for (const section of sections) {
    const caption = 'Milliseconds from when a body was due to its answer, in an open loop at half the rate that is held; medians of the rounds.';
    const median = values => [...values].sort((a, b) => a - b)[values.length >> 1];
    const line = (series, at) => latencyLine(series.title, Object.fromEntries(PERCENTILES.map(name =>
      [name, median(series.rounds.map(round => round.latency_ms?.[name] ?? 0))])), at % 2 ? 'postgres' : 'ours');
    part(`${section.title}: latency`, figure(caption, lines(caption, PERCENTILES, section.series.filter(isPaced).map(line))));
  }
  for (const section of sections) {
    if (isGrowth(section)) {
      part(`${section.title}: memory`, drawn('The most memory that the service had, in MiB.', ofFigure(kindOf(section), 'service_peak_bytes', ' MiB')));
      continue;
    }
    const stack = series => {
      const parts = ['service', 'postgres', 'client'].map(who => [who, series[`${who}_cpu_us_per_row`]?.median ?? 0]);
      return { name: series.title, parts, label: `${fixed(1)(parts.reduce((sum, [, value]) => sum + value, 0))} µs` };
    };
    const keys = [['--service', 'service'], ['--postgres', 'PostgreSQL'], ['--client', 'client']];
    part(`${section.title}: cost of an event`,
      drawn('Microseconds of CPU for each row. The client is this load generator, or psql.', kindOf(section, false).map(stack), keys),
      drawn('Microseconds of CPU for each request of a single event; the empty handler counts as the service.', kindOf(section, true).map(stack), keys),
      drawn('Bytes of write-ahead log that PostgreSQL wrote for each row.', ofFigure(kindOf(section), 'wal_bytes_per_row', ' B')));
  }
  const rows = section => [[section.title, 'median of rows/s', 'min–max', ...FIGURES.slice(1).map(([, title]) => title)],
    ...section.series.map(series => {
      const cell = ([name]) => series[name] && show(name, series[name].median);
      const rate = series.rows_per_second;
      return [series.title, cell(FIGURES[0]), rate && `${grouped(rate.min)}–${grouped(rate.max)}`, ...FIGURES.slice(1).map(cell)];
    })];
  const more = report.service_args.length ? `; service with ${report.service_args.join(' ')}` : '';
  add(make('details', {}, make('summary', {}, 'All figures'), ...sections.map(section => table(rows(section))),
    make('p', { class: 'soft' }, "Service, postgres and client are microseconds of CPU a row; WAL is bytes a row; MiB is the service's peak of memory. " +
      `Linux ${report.machine.kernel}; ${report.seconds.toFixed(0)} s in all${more}; ${versions()}.`)));
}

function run() {
  const failures = report.failures.concat(report.unfinished ? [report.unfinished] : []);
  const first = report.passes[0];
  head(failures.length ? 'A run with faults' : 'A run without a fault',
    `${grouped(report.run.events)} events at most, ${report.run.connections} connections, ack=${report.run.ack}, seed ${report.run.seed}.`, versions());
  tiles([['', grouped(first.events_per_second), 'events a second, acknowledged'],
    ...(first.latency_ms ? [['', `${fixed(1)(first.latency_ms.p99)} ms`, 'p99 of the answers']] : []),
    [failures.length ? 'bad' : 'good', `${failures.length}`, 'faults'], ['', report.check ? grouped(report.check.found) : '-', 'events found in the tables']]);
  if (failures.length) part('Faults', table([['what'], ...failures.map(words => [words])]));
  const caption = 'Milliseconds to the answer; with --rate, from when a body was due.';
  part('Latency', figure(caption, lines(caption, PERCENTILES, report.passes.map((pass, at) =>
    latencyLine(`pass ${at + 1}`, pass.latency_ms, at % 2 ? 'postgres' : 'ours')).filter(line => line))));
  const names = ['accepted', 'committed', 'duplicates', 'quarantined', 'rejected', 'refused', 'unknown'];
  report.passes.forEach((pass, at) => part(`Events of pass ${at + 1}`,
    table([['', ...names], ...pass.formats.map(of => [`${of.table} ${of.format}`, ...names.map(name => grouped(of[name]))]),
      ['all', ...names.map(name => grouped(pass.total[name]))]])));
}

function sweep() {
  head(report.held ? `${grouped(report.held)} events a second are held` : 'No rate is held',
    `A rate is held if for ${report.hold_seconds} s the p99 of the answers is at most ${report.p99_ms_max} ms, nothing is refused and all is answered in time.`,
    `ack=${report.ack}; ${versions()}`);
  const rates = [...report.tries].sort((a, b) => a.rate - b.rate);
  const ofTries = (value, label, caption, target) => figure(caption, bars(caption, rates.map(one =>
    ({ name: `${grouped(one.rate)} events/s`, parts: [[one.held ? 'good' : 'bad', value(one)]], label: label(one) })), target));
  part('Tries', ofTries(one => one.p99_ms / report.p99_ms_max, one => `${fixed(1)(one.p99_ms)} ms`, 'p99 of the answers; the dashed line is the bound.', 'the bound'),
    ofTries(one => one.achieved, one => grouped(one.achieved), 'Events a second that were answered.'),
    table([['events/s', 'answered/s', 'p99 ms', ''], ...rates.map(one =>
      [grouped(one.rate), grouped(one.achieved), fixed(1)(one.p99_ms), one.held ? 'held' : `not held: ${one.why}`])]));
}

if (report.interrupted) add(make('p', { class: 'tile bad' }, make('b', {}, 'Interrupted'), 'Of what was measured until then.'));
if (report.quick) add(make('p', { class: 'tile bad' }, make('b', {}, 'Quick'), 'To see that it works, not to quote.'));
({ comparison, run, sweep })[report.kind]();
