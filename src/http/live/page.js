// The live page: asks /live once a second while the page is seen, and shows what it says.
// Text is only ever set as text, never as HTML.
'use strict';

const EVERY_MS = 1000, PATIENCE_MS = 8000, KEPT_SECONDS = 300, RATE_OVER_SECONDS = 3, BODIES_MAX = 100;
const $ = id => document.getElementById(id);
const COLOURS = ['--one', '--two', '--three'];

let key = sessionStorage.getItem('key');
let after = 0;            // the number of the last verdict that is known
let timer = 0, asking = false;
let bodies = [], missed = 0;
let samples = [];         // {t, accepted: [], lag: []}, one for each answer
let away = false;         // whether the service did not answer last time

// ---- making elements

function el(tag, props, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null) continue;
    if (name === 'class') made.className = value; else if (name in made && name !== 'scope') made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter(child => child !== undefined && child !== null));
  return made;
}

// Builds the content of an element again, if what it shows has changed.
const shown = new Map();
function render(id, data, build) {
  const text = JSON.stringify(data);
  if (shown.get(id) === text) return;
  shown.set(id, text);
  $(id).replaceChildren(...[build(data)].flat());
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// A table with a caption. Columns: [title, value of a row, class].
function table(caption, columns, rows, none) {
  if (!rows.length) return el('table', {}, el('caption', {}, caption), el('tbody', {}, el('tr', {}, el('td', {}, none))));
  const cells = row => columns.map(([, value, kind]) => {
    const content = value(row);
    return el('td', { class: typeof kind === 'function' ? kind(row) : kind }, ...[content ?? ''].flat());
  });
  return el('table', {},
    el('caption', {}, caption),
    el('thead', {}, el('tr', {}, ...columns.map(([title, , kind]) =>
      el('th', { scope: 'col', class: kind === 'number' ? 'number' : undefined }, title)))),
    el('tbody', {}, ...rows.map(row => el('tr', {}, ...cells(row)))));
}

// ---- words for numbers

const whole = number => number === undefined ? '' : Math.round(number).toLocaleString('en');
const time = text => text ? text.replace('T', ' ').replace(/(\.\d{3})?\d*Z$/, '$1Z') : '';
const clock = text => text.slice(11).replace(/(\.\d{3})\d*Z$/, '$1Z');

function bytes(number) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) { number /= 1024; unit += 1; }
  return `${number < 10 && unit ? number.toFixed(1) : Math.round(number)} ${units[unit]}`;
}

function seconds(number) {
  if (number === undefined || number === null) return '–';
  if (number < 10) return `${number.toFixed(2)} s`;
  if (number < 120) return `${Math.round(number)} s`;
  if (number < 7200) return `${Math.round(number / 60)} min`;
  return `${Math.round(number / 3600)} h`;
}

function rate(number) {
  if (number === null || number === undefined) return '–';
  return number > 0 && number < 10 ? number.toFixed(1) : whole(number);
}

// ---- states, which a screen reader says when they change

function state(id, kind, title, words) {
  const node = $(id), text = `${kind} ${title} ${words}`;
  if (shown.get(id) === text) return;
  shown.set(id, text);
  node.className = `state ${kind}`;
  node.replaceChildren(...title ? [el('b', {}, title)] : [], words);
}

const SERVICE = { ready: ['good', 'Ready.'], degraded: ['warn', 'Degraded.'], unready: ['bad', 'Takes no events.'] };
const POSTGRES = { here: ['good', ''], away: ['bad', 'Postgres is away'], refusing: ['warn', 'Postgres refuses rows'], fault: ['bad', 'Events cannot be stored'] };

function showStates(live) {
  const [kind, title] = SERVICE[live.service.status] ?? ['warn', live.service.status];
  const words = live.service.reasons.join(' · ') || 'Events are taken.';
  state('service-state', kind, title, words);
  const [postgresKind, trouble] = POSTGRES[live.postgres.state] ?? ['warn', live.postgres.state];
  state('postgres-state', postgresKind, '', live.postgres.words);
  document.title = `${trouble}${trouble && ' – '}recsys-ingest`;
}

function serviceIsAway(title, why) {
  if (!away) addGap();
  away = true;
  const before = samples.length ? ' What is below is from before.' : '';
  state('postgres-state', 'warn', 'Postgres:', `not known until the service answers.${before}`);
  state('service-state', 'bad', title, why);
  document.title = 'Away – recsys-ingest';
  reveal();
}

// What came in between is not known: the charts have a gap there.
function addGap() {
  if (samples.length) samples.push({ t: samples.at(-1).t + 0.001 });
}

function reveal() {
  $('key-form').hidden = true;
  $('main').hidden = false;
}

// ---- now

function showTiles(live) {
  const now = samples.at(-1);
  const before = [...samples].reverse().find(sample => sample.accepted && now.t - sample.t >= RATE_OVER_SECONDS) ?? samples.find(sample => sample.accepted);
  const rates = live.tables.map((table, at) => {
    const over = now.t - before.t, more = now.accepted[at] - before.accepted[at];
    return over > 0 && more >= 0 ? more / over : null;
  });
  if (!shown.has('tiles')) {
    shown.set('tiles', '');
    $('tiles').replaceChildren(...live.tables.map((table, at) => el('div', { class: 'tile' },
      el('h3', {}, el('span', { class: `dot c${at}` }), table.table),
      el('div', { class: 'big' }, el('span', { id: `rate-${at}` }), el('small', {}, ' events/s')),
      el('dl', {}, ...['accepted', 'stored', 'duplicates', 'rejected', 'quarantined', 'lag', 'oldest'].flatMap(name => [
        el('dt', {}, { accepted: 'accepted since the start', stored: 'rows stored', duplicates: 'rows that were there already', rejected: 'events rejected', quarantined: 'rows set aside', lag: 'receipt to COMMIT, last batch', oldest: 'oldest row not stored' }[name]),
        el('dd', { id: `${name}-${at}` })])))));
  }
  live.tables.forEach((table, at) => {
    setText($(`rate-${at}`), rate(rates[at]));
    for (const name of ['accepted', 'stored', 'duplicates', 'rejected', 'quarantined']) setText($(`${name}-${at}`), whole(table[name]));
    setText($(`lag-${at}`), seconds(table.last_lag_seconds));
    setText($(`oldest-${at}`), table.oldest_unstored_seconds === undefined ? 'none' : seconds(table.oldest_unstored_seconds));
  });
  setText($('rate-legend'), live.tables.map((table, at) => `${table.table}: ${rate(rates[at])}/s`).join(' · '));
  setText($('lag-legend'), live.tables.map(table => `${table.table}: ${table.oldest_unstored_seconds === undefined ? 'none waits' : seconds(table.oldest_unstored_seconds)}`).join(' · '));
}

function showFills(live) {
  const fills = [
    ['Spool', live.spool.bytes, live.spool.bytes_max, bytes, `${whole(live.spool.segments)} segment${live.spool.segments === 1 ? '' : 's'}, ${whole(live.spool.frames)} records not stored${live.spool.lost ? `, ${whole(live.spool.lost)} rows lost` : ''}`],
    ['Memory for events on their way', live.memory.used, live.memory.max, bytes, ''],
    ['Connections', live.connections.used, live.connections.max, whole, ''],
  ];
  if (!shown.has('fills')) {
    shown.set('fills', '');
    $('fills').replaceChildren(...fills.map(([title], at) => el('div', { class: 'tile' },
      el('h3', {}, title), el('meter', { id: `meter-${at}`, min: 0, max: 1, 'aria-label': title }),
      el('p', { class: 'quiet', id: `fill-${at}` }))));
  }
  fills.forEach(([title, used, max, word, more], at) => {
    const meter = $(`meter-${at}`);
    meter.high = 0.5; meter.optimum = 0;
    meter.value = max ? used / max : 0;
    const text = `${word(used)} of ${word(max)}${more ? ` · ${more}` : ''}`;
    setText($(`fill-${at}`), text);
    meter.setAttribute('aria-valuetext', text);
  });
}

const HEALTH = { good: 'stores', setting_aside: 'sets every row aside', away: 'Postgres is away or busy', undecided: 'waits for more rows, to tell what is wrong', fault: 'an operator has to act' };

function showLanes(live) {
  const rows = live.lanes.map(lane => ({ ...lane, oldest_unstored_seconds: lane.oldest_unstored_seconds && Math.round(lane.oldest_unstored_seconds) }))
    .sort((a, b) => a.table.localeCompare(b.table) || a.shard - b.shard);
  render('lanes', rows, () => table('Lanes: the writers to Postgres', [
    ['table', lane => lane.table], ['lane', lane => lane.shard, 'number'],
    ['state', lane => HEALTH[lane.health] ?? lane.health, lane => lane.health === 'good' ? 'good' : lane.health === 'fault' || lane.health === 'away' ? 'bad' : 'warn'],
    ['rows waiting', lane => whole(lane.waiting), 'number'],
    ['oldest waits', lane => lane.oldest_unstored_seconds === undefined ? '–' : seconds(lane.oldest_unstored_seconds), 'number'],
    ['rows stored, ever', lane => whole(lane.stored), 'number'],
  ], rows, 'none'));
}

// ---- charts

let charts = [];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function drawCharts(names) {
  if (typeof uPlot === 'undefined') return;
  for (const chart of charts) chart.destroy();
  const axis = { stroke: colour('--quiet'), grid: { stroke: colour('--line'), width: 1 }, ticks: { stroke: colour('--line'), width: 1 }, font: '12px system-ui' };
  const make = (id, decimals) => new uPlot({
    width: Math.max($(id).clientWidth, 100), height: 180, legend: { show: false }, cursor: { show: false },
    scales: { y: { range: (self, min, max) => [0, Math.max(max ?? 0, 1) * 1.05] } },
    axes: [{ ...axis, space: 70, values: (self, ticks) => ticks.map(tick => new Date(1000 * tick).toISOString().slice(11, 19)) }, { ...axis, size: 56, values: (self, ticks) => ticks.map(tick => tick.toLocaleString('en', { maximumFractionDigits: decimals })) }],
    series: [{}, ...names.map((name, at) => ({ label: name, stroke: colour(COLOURS[at]), width: 2, dash: [[], [8, 4], [2, 3]][at], points: { show: false } }))],
  }, [[], ...names.map(() => [])], $(id));
  charts = [make('rate-chart', 0), make('lag-chart', 1)];
}

function feedCharts(names) {
  if (!charts.length) drawCharts(names);
  if (!charts.length) return;
  const times = samples.map(sample => sample.t);
  const rates = names.map((name, at) => samples.map((sample, n) => {
    const before = samples[n - 1];
    if (!sample.accepted || !before?.accepted || sample.accepted[at] < before.accepted[at]) return null;
    return (sample.accepted[at] - before.accepted[at]) / (sample.t - before.t);
  }));
  const lags = names.map((name, at) => samples.map(sample => sample.lag ? sample.lag[at] : null));
  charts[0].setData([times, ...rates]);
  charts[1].setData([times, ...lags]);
}

// ---- bodies and reasons

function reasonsOf(body) {
  return (body.reasons ?? []).map(reason => `${reason.code}${reason.field ? ` ${reason.field}` : ''}${reason.count > 1 ? ` ×${reason.count}` : ''}`).join(', ');
}

function showBodies(live) {
  const fresh = live.bodies;
  if (fresh.length) {
    if (after >= live.bodies_began && fresh[0].number > after + 1) missed += fresh[0].number - after - 1;
    after = fresh.at(-1).number;
    bodies = [...fresh.reverse(), ...bodies].slice(0, BODIES_MAX);
  }
  render('bodies', [bodies.length && bodies[0].number, missed], () => table(
    `The last ${bodies.length} bodies${missed ? ` (${whole(missed)} more came between two looks)` : ''}`, [
      ['time', body => clock(body.at), 'time'], ['endpoint', body => body.endpoint],
      ['status', body => `${body.status} ${body.code ?? body.ack ?? ''}`, body => body.status < 300 ? 'good' : body.status < 500 ? 'warn' : 'bad'],
      ['accepted', body => whole(body.accepted), 'number'], ['rejected', body => whole(body.rejected), 'number'],
      ['new', body => whole(body.committed), 'number'], ['duplicates', body => whole(body.duplicates), 'number'], ['quarantined', body => whole(body.quarantined), 'number'],
      ['reasons', body => [reasonsOf(body), body.not_collected ? `${whole(body.not_collected)} not collected` : '', ...(body.warnings ?? []).map(code => `warning: ${code}`)].filter(Boolean).join(' · '), 'text'],
    ], bodies, 'None since this page was opened.'));
}

function showReasons(live) {
  render('rejections', live.rejections, rows => table('Events rejected since the start', [
    ['table', row => row.table], ['code', row => el('a', { href: `problems#event-${row.code}` }, row.code)],
    ['events', row => whole(row.count), 'number'], ['meaning', row => row.meaning, 'text'],
    ['last example', row => row.example ? `${clock(row.example.at)} ${row.example.field ?? ''} ${row.example.message}` : '', 'text'],
  ], rows, 'None.'));
  render('quarantine', live.quarantine, rows => table('Rows in quarantine, of the last thousand', [
    ['table', row => row.table], ['code', row => row.code], ['rows', row => whole(row.rows), 'number'],
    ['last', row => time(row.last_at), 'time'],
    ['last example', row => `${row.place ? `${row.place}: ` : ''}${row.message}`, 'text'],
  ], rows, 'None. What Postgres refuses would be here, with its words.'));
  render('refusals', live.refusals, rows => table('Requests refused with 503 or 429 since the start', [
    ['code', row => el('a', { href: `problems#${row.code}` }, row.code)], ['requests', row => whole(row.count), 'number'],
    ['meaning', row => row.meaning, 'text'],
  ], rows, 'None.'));
}

// ---- partitions, accounts, findings

function showPartitions(live) {
  const survey = live.postgres;
  const read = survey.surveyed_seconds_ago === undefined ? 'Not read from Postgres yet.' : survey.surveyed_seconds_ago < 15 ? 'Read from Postgres every few seconds while someone looks.' : `Read from Postgres ${seconds(survey.surveyed_seconds_ago)} ago.`;
  setText($('survey'), survey.survey_failure ? `${read} It cannot be read now: ${survey.survey_failure}` : read);
  const now = Date.parse(live.now);
  render('partitions', live.partitions, tables => tables.flatMap(({ table: name, newest, older }) => {
    const open = $(`parts-${name}`)?.open ?? false;
    const kind = part => part.from && Date.parse(part.from) > now ? 'ahead' : part.state === 'default' ? 'other' : part.state;
    const most = Math.max(...newest.map(part => part.bytes), 1);
    const bars = newest.map(part => {
      const isToday = part.from && part.to && Date.parse(part.from) <= now && now < Date.parse(part.to);
      const bar = el('li', { class: `${kind(part)}${isToday ? ' today' : ''}`, title: `${part.name}: ${bytes(part.bytes)}, ${kind(part)}` });
      bar.style.height = `${Math.max(4, 100 * part.bytes / most)}%`;
      return bar;
    });
    const count = which => newest.filter(part => kind(part) === which).length;
    const sum = bytes(newest.reduce((all, part) => all + part.bytes, 0));
    const said = ['hot', 'partly', 'sealed', 'ahead', 'other'].filter(count).map(which => `${count(which)} ${{ ahead: 'ahead of time', other: 'default or other', partly: 'being sealed' }[which] ?? which}`).join(', ');
    const line = `${newest.length} partitions, ${sum}: ${said || 'none'}${older ? `; ${older} older ones are not shown` : ''}`;
    return [el('h3', {}, name),
      el('ol', { class: 'timeline', role: 'img', 'aria-label': `${name}: ${line}` }, ...bars),
      el('details', { id: `parts-${name}`, open }, el('summary', {}, line),
        el('div', { class: 'wide tall', tabIndex: 0, role: 'region', 'aria-label': `Partitions of ${name}` },
          table(`Partitions of ${name}`, [
            ['partition', part => part.name], ['from', part => time(part.from), 'time'], ['to', part => time(part.to), 'time'],
            ['size', part => bytes(part.bytes), 'number'], ['rows, about', part => part.rows === undefined ? '?' : whole(part.rows), 'number'],
            ['state', part => kind(part) === 'ahead' ? `${part.state}, ahead of time` : part.state],
          ], [...newest].reverse(), 'none')))];
  }));
}

function showAccounts(live) {
  const number = name => [name, row => whole(row[name]), 'number'];
  render('accounts', live.accounts, rows => table('Rows of this instance: accepted = stored + duplicates + quarantined + spooled + lost', [
    ['table', row => row.table], ...['accepted', 'stored', 'duplicates', 'quarantined', 'spooled', 'lost'].map(number),
  ], rows, 'none'));
  render('totals', live.totals, rows => table('Rows of all instances and of operators, by the ledger', [
    ['table', row => row.table], ...['stored', 'duplicates', 'quarantined', 'dropped'].map(number),
  ], rows, 'Nothing was stored yet.'));
  render('instances', live.instances, rows => table('Instances, by their spools', [
    ['spool', row => `${row.spool.slice(0, 8)}…${row.is_this ? ' (this one)' : ''}`], ['host', row => row.host], ['process', row => row.pid, 'number'],
    ['last batch', row => time(row.stored_at), 'time'], ...['stored', 'duplicates', 'quarantined'].map(number),
  ], rows, 'None has stored a batch yet.'));
  render('findings', live.findings, rows => rows.map(finding => el('details', { class: `state ${{ fault: 'bad', degraded: 'warn' }[finding.severity] ?? 'good'}` },
    el('summary', {}, `${finding.severity}: ${finding.seen}`),
    el('p', {}, finding.meaning), el('p', {}, `What to do: ${finding.remedy}`))));
}

// ---- what to paste

function showCommands(live) {
  const ingest = live.ingest;
  render('commands', ingest, () => {
    const url = ingest.is_apart ? `${ingest.is_https ? 'https' : 'http'}://${location.hostname}:${ingest.port}` : location.origin;
    const quoted = text => `'${text.replaceAll("'", "'\\''")}'`;
    const post = (path, event) => `curl -sS "$INGEST_URL/v1/${path}?ack=committed" -H "X-API-Key: $INGEST_API_KEY" -H "Content-Type: application/json" -d ${quoted(JSON.stringify(event))}`;
    const commands = [
      ['First, in a terminal', ingest.env_file ? `. ${quoted(ingest.env_file)}` : `INGEST_URL=${quoted(url)} INGEST_API_KEY='…'`],
      ['Something was shown', post('exposures', { request_id: 'page-1', surface: 'home', user_id: 'ada', items: [{ item_id: 'book', rank: 1 }, { item_id: 'lamp', rank: 2 }] })],
      ['It was clicked', post('interactions', { request_id: 'page-1', user_id: 'ada', event_type: 'click', item_id: 'lamp', position: 2 })],
      ['This is rejected, with a reason', post('interactions', { event_type: 'stare', item_id: 'lamp' })],
      ['The same bodies in the terminal', `recsys-ingest tap --url ${quoted(location.origin)}`],
    ];
    return commands.flatMap(([title, command]) => {
      const text = el('pre', {}, command);
      const copy = el('button', { type: 'button', 'aria-label': `Copy: ${title}` }, 'Copy');
      copy.addEventListener('click', async () => {
        try {
          await navigator.clipboard.writeText(command);
          copy.textContent = 'Copied';
          setTimeout(() => { copy.textContent = 'Copy'; }, 2000);
        } catch {
          // Without HTTPS a browser gives no clipboard: the text is marked instead.
          getSelection().selectAllChildren(text);
        }
      });
      return [el('h3', {}, title), el('div', { class: 'command' }, text, copy)];
    });
  });
  setText($('try-how'), ingest.env_file
    ? 'The file has the variables that the other lines use. Each line posts a new event, however often it is pasted.'
    : 'INGEST_API_KEY is a key with the role ingest (recsys-ingest keys create). Each line posts a new event, however often it is pasted.');
}

// ---- asking

function show(live) {
  away = false;
  setText($('version'), live.version);
  setText($('about'), `instance ${live.instance.slice(0, 8)}… · up for ${seconds(live.uptime_seconds)}`);
  const t = Date.parse(live.now) / 1000;
  if (!samples.length || t > samples.at(-1).t) {
    samples.push({ t, accepted: live.tables.map(table => table.accepted), lag: live.tables.map(table => table.oldest_unstored_seconds ?? 0) });
  }
  samples = samples.filter(sample => t - sample.t <= KEPT_SECONDS);
  reveal();
  showStates(live);
  if (samples.at(-1).accepted) showTiles(live);
  feedCharts(live.tables.map(table => table.table));
  for (const part of [showFills, showLanes, showBodies, showReasons, showPartitions, showAccounts, showCommands]) part(live);
}

function askForKey(why) {
  $('main').hidden = true;
  $('key-form').hidden = false;
  setText($('key-why'), key ? `That key was not taken: ${why}.` : 'What this service does is shown to operators.');
  $('key').focus();
}

async function look() {
  const answer = await fetch(`live?after=${after}`, {
    headers: key ? { 'X-API-Key': key } : {}, cache: 'no-store', credentials: 'omit', signal: AbortSignal.timeout(PATIENCE_MS),
  });
  const body = await answer.json();
  if (answer.status === 401 || answer.status === 403) { askForKey(body.detail); return false; }
  if (answer.ok) show(body);
  else serviceIsAway(`The service answers with ${answer.status}:`, `${body.detail}. This page goes on asking.`);
  return true;
}

async function poll() {
  clearTimeout(timer);
  if (asking || document.hidden) return;
  asking = true;
  let goesOn = true;
  try {
    goesOn = await look();
  } catch (error) {
    const why = error.name === 'TimeoutError' ? 'It takes too long.' : 'It is stopped, or not reached from here.';
    serviceIsAway('The service does not answer.', `${why} This page goes on asking.`);
  }
  asking = false;
  if (goesOn) timer = setTimeout(poll, EVERY_MS);
}

$('key-form').addEventListener('submit', event => {
  event.preventDefault();
  key = $('key').value.trim();
  sessionStorage.setItem('key', key);
  $('key').value = '';
  poll();
});
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) { addGap(); poll(); }
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { if (charts.length) drawCharts(charts[0].series.slice(1).map(series => series.label)); });
addEventListener('resize', () => {
  for (const [at, id] of ['rate-chart', 'lag-chart'].entries()) charts[at]?.setSize({ width: Math.max($(id).clientWidth, 100), height: 180 });
});
poll();
