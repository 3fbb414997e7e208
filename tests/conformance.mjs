// Runs a checkout of http-tests/cache-tests, in its layout of the npm package or of the repository since, against a
// cache, and prints what each test came to; what that means is judged elsewhere (tests/src/conformance).
//
//   node conformance.mjs SUITE BASE [ID...]     all tests, or those with these ids
//
// One JSON object on standard output: {"tests": [{"id", "suite", "kind", "depends_on", "outcome"}]}, where an outcome is
// true, or what was thrown: [name, message].
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

const [folder, base, ...ids] = process.argv.slice(2)
const suite = resolve(folder)
const load = path => import(pathToFileURL(join(suite, path)).href)
const engine = existsSync(join(suite, 'test-engine')) ? 'test-engine/client' : 'client'
const { runTests, getResults } = await load(`${engine}/runner.mjs`)
const suites = [...(await load('tests/index.mjs')).default]
// The package's own program adds one that its list leaves out.
const extra = 'tests/surrogate-control.mjs'
if (existsSync(join(suite, extra))) suites.push((await load(extra)).default)

const chosen = suites
  .map(suite => ({ ...suite, tests: suite.tests.filter(test => ids.length === 0 || ids.includes(test.id)) }))
  .filter(suite => suite.tests.length > 0)

// The suite's own progress must not mix with the answer.
console.log = console.error
if (engine === 'client') {
  // The package is handed its fetch; from a dependency of its own.
  const fetch = createRequire(join(suite, 'package.json'))('node-fetch')
  await runTests(chosen, fetch, false, base, atOnce())
} else {
  await runTests(chosen, false, base, atOnce())
}
const outcomes = getResults()
const tests = chosen.flatMap(suite => suite.tests
  .filter(test => test.browser_only !== true)
  .map(test => ({
    id: test.id,
    suite: suite.id ?? suite.name,
    kind: test.kind ?? 'required',
    depends_on: test.depends_on ?? [],
    outcome: outcomes[test.id] ?? null
  })))
process.stdout.write(JSON.stringify({ tests }), () => process.exit(0))

// Tests under way at once: many, since most of their time is pauses; not all, since some count seconds.
function atOnce () {
  return 25
}
