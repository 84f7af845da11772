// What a client is asked, from standard input, and what it tells of the answers, to standard output; both JSON.
import { readFileSync, writeFileSync } from "node:fs";

export const asked = JSON.parse(readFileSync(0, "utf8"));
export const answerTokens = 32;
export const tell = (answers) => writeFileSync(1, JSON.stringify(answers));
