// Builds dist/ and prints the sizes. Fails if one is over what the README promises.
import { gzipSync } from 'node:zlib';
import { readFileSync } from 'node:fs';
import { build } from 'esbuild';

const common = { bundle: true, minify: true, target: 'es2020', legalComments: 'none', outdir: 'dist', logLevel: 'error' };
await build({ ...common, format: 'esm', entryPoints: { index: 'src/index.js', core: 'src/core.js' } });
await build({ ...common, format: 'iife', globalName: 'RecsysIngest', entryPoints: { 'ingest.min': 'src/index.js' } });

let over = false;
for (const [file, most] of [['core.js', 4000], ['index.js', 5500], ['ingest.min.js', 5500]]) {
  const text = readFileSync(`dist/${file}`);
  const size = gzipSync(text, { level: 9 }).length;
  over ||= size > most;
  console.log(`dist/${file}: ${text.length} bytes, ${size} gzipped (at most ${most})`);
}
if (over) process.exitCode = 1;
