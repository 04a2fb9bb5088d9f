// The form that learns a text into a memory: a file, dropped or chosen, or pasted text.
import {post} from './api.js';
import {h, replace} from './dom.js';
import {bytes, plural} from './format.js';
import {act, dialog, field, numberField, select} from './widgets.js';

const kMostBytes = 4 << 20;  // an envelope's limit; the controller's own message covers the rest

// What the controller's names may hold: [a-z0-9._-], not '.' or '-' first, at most 100 of a slug.
export function slug(text) {
  return text.toLowerCase().replace(/[^a-z0-9._-]+/g, '-').replace(/^[.-]+|-+$/g, '').slice(0, 100);
}

// Only what differs from the default is sent: the rest is the generator's to choose.
function configOf(fields) {
  const config = {kind: fields.kind.value, segments: fields.segments.value};
  for (const name of ['rank', 'lr', 'max_steps', 'layer']) {
    if (fields[name].value !== '') config[name] = Number(fields[name].value);
  }
  return config;
}

// Resolves to the job's id, or undefined where it was closed.
export function askToLearn(session) {
  const text = h('textarea', {rows: 9, 'data-first': true, dir: 'auto', spellcheck: 'false',
    placeholder: 'Paste a text here, or drop a file on this field.'});
  const file = h('input', {type: 'file', accept: 'text/*,.txt,.md,.csv,.json,.log'});
  const source = h('input', {type: 'text', required: true, autocomplete: 'off', spellcheck: 'false'});
  const ns = h('input', {type: 'text', value: session.namespaces?.[0] ?? 'default',
    autocomplete: 'off', spellcheck: 'false'});
  const id = h('input', {type: 'text', placeholder: 'made from the source', autocomplete: 'off'});
  const fields = {
    kind: select([['mlp', 'mlp: a whole MLP, 5 MB'], ['lora', 'lora: a low-rank change, 0.2 MB'],
      ['delta', 'delta: a state, follows the text']], 'mlp'),
    segments: select([['cumulative', 'cumulative: each from the beginning'],
      ['overlap', 'overlap: windows of words']], 'cumulative'),
    rank: numberField('', {min: 1, max: 256, placeholder: '16'}),
    lr: numberField('', {min: 0, step: 'any', placeholder: 'of the kind'}),
    max_steps: numberField('', {min: 0, placeholder: 'of the kind'}),
    layer: numberField('', {min: -1, placeholder: "the generator's"}),
  };
  const size = h('small', {class: 'dim', role: 'status'});
  const place = h('div');
  const go = h('button', {type: 'submit', class: 'primary'}, 'Learn');

  function measure() {
    const words = text.value.trim() ? text.value.trim().split(/\s+/).length : 0;
    size.textContent = words ? `${plural(words, 'word')}, ${bytes(new Blob([text.value]).size)}` : '';
  }

  async function take(chosen) {
    if (!chosen) return;
    replace(place);
    if (chosen.size > kMostBytes) {
      replace(place, h('p', {class: 'error-text', role: 'alert'}, `${chosen.name} has ` +
          `${bytes(chosen.size)}; at most ${bytes(kMostBytes)} are learned at once.`));
      return;
    }
    text.value = await chosen.text();
    if (!source.value) source.value = slug(chosen.name.replace(/\.[^.]*$/, ''));
    measure();
  }

  file.addEventListener('change', () => take(file.files[0]));
  text.addEventListener('input', measure);
  text.addEventListener('dragover', (event) => event.preventDefault());
  text.addEventListener('drop', (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });

  return dialog('Learn a text', (close) => h('form', {on: {submit: async (event) => {
    event.preventDefault();
    const made = await act(go, place, () => {
      if (!text.value.trim()) throw new Error('There is no text yet: paste one or choose a file.');
      const body = {text: text.value, source: slug(source.value), namespace: ns.value.trim(),
        config: configOf(fields)};
      if (id.value.trim()) body.id = id.value.trim();
      return post(['learn'], body);
    });
    if (made) close(made.job);
  }}},
  field('File', file), field('Text', text), size,
  h('div', {class: 'columns'},
      field('Source', source, 'What the text is called. Lower case letters, digits, . _ -'),
      field('Kind', fields.kind)),
  h('details', {}, h('summary', {}, 'More settings'),
      h('div', {class: 'columns'}, field('Namespace', ns), field('Id', id),
          field('Segments', fields.segments), field('Rank (lora)', fields.rank),
          field('Learning rate', fields.lr), field('Steps at most', fields.max_steps),
          field('Layer', fields.layer))),
  place,
  h('div', {class: 'row end'},
      h('button', {type: 'button', on: {click: () => close()}}, 'Cancel'), go)));
}
