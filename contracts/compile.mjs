// Compiles SwarmCoordinator.sol with the solc-js found under the folder given, and prints the artifact.
//   node compile.mjs FOLDER_WITH_NODE_MODULES SOURCE.sol
// No metadata is appended, so that the same compiler always makes the same bytes.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join, resolve } from "node:path";

const [folder, file] = process.argv.slice(2);
const solc = createRequire(join(resolve(folder), "index.js"))("solc");
const source = readFileSync(file);
const name = basename(file, ".sol");
const settings = {
  evmVersion: "cancun",
  optimizer: { enabled: true, runs: 10000 },
  viaIR: false,
  metadata: { bytecodeHash: "none", appendCBOR: false },
};
const input = {
  language: "Solidity",
  sources: { [basename(file)]: { content: source.toString("utf8") } },
  settings: { ...settings, outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } } },
};
const output = JSON.parse(solc.compile(JSON.stringify(input)));
const problems = output.errors ?? [];
for (const problem of problems) process.stderr.write(problem.formattedMessage);
if (problems.length) process.exit(1);
const contract = output.contracts[basename(file)][name];
const artifact = {
  name,
  compiler: solc.version(),
  settings,
  source_sha256: createHash("sha256").update(source).digest("hex"),
  bytecode: "0x" + contract.evm.bytecode.object,
  abi: contract.abi,
};
process.stdout.write(JSON.stringify(artifact, null, 1) + "\n");
