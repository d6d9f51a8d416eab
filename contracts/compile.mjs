// Compiles a Solidity file, with what it imports from beside it, and prints the artifact.
//   node compile.mjs FOLDER_WITH_NODE_MODULES SOURCE.sol
// No metadata is appended, so that the same compiler always makes the same bytes.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join, resolve } from "node:path";

const [folder, file] = process.argv.slice(2);
const solc = createRequire(join(resolve(folder), "index.js"))("solc");
const name = basename(file, ".sol");
const read = new Map();
const source = (path) => {
  read.set(path, readFileSync(join(dirname(file), path)));
  return read.get(path).toString("utf8");
};
const settings = {
  evmVersion: "cancun",
  optimizer: { enabled: true, runs: 200 },
  viaIR: false,
  metadata: { bytecodeHash: "none", appendCBOR: false },
};
const outputs = ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"];
const input = {
  language: "Solidity",
  sources: { [basename(file)]: { content: source(basename(file)) } },
  settings: { ...settings, outputSelection: { "*": { "*": outputs } } },
};
const output = JSON.parse(solc.compile(JSON.stringify(input), { import: (path) => ({ contents: source(path) }) }));
const problems = output.errors ?? [];
for (const problem of problems) process.stderr.write(problem.formattedMessage);
if (problems.length) process.exit(1);
const contract = output.contracts[basename(file)][name];
const digest = createHash("sha256");
for (const path of [...read.keys()].sort()) digest.update(read.get(path));
const artifact = {
  name,
  compiler: solc.version(),
  settings,
  source_sha256: digest.digest("hex"),
  runtime_bytes: contract.evm.deployedBytecode.object.length / 2,
  bytecode: "0x" + contract.evm.bytecode.object,
  abi: contract.abi,
};
process.stdout.write(JSON.stringify(artifact, null, 1) + "\n");
