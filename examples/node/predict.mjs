// A self-exiting file in Node: node predict.mjs model.onnx photo.jpg …
// The file: offramp export my-model model.onnx --preprocess. It leaves early by itself; there is nothing to do here.
import { readFileSync } from "node:fs";
import jpeg from "jpeg-js";
import ort from "onnxruntime-node";

const [file, ...photos] = process.argv.slice(2);
if (!file || photos.length === 0) {
  console.error("usage: node predict.mjs model.onnx photo.jpg …");
  process.exit(2);
}
const bytes = readFileSync(file);
const session = await ort.InferenceSession.create(bytes, { logSeverityLevel: 3 });
// the names of the classes stand in the file's metadata, as JSON, which this runtime has no call for
const classes = JSON.parse(bytes.subarray(-1e6).toString().match(/"classes": (\[.*?\])/)?.[1] ?? "null");

for (const photo of photos) {
  const { data, width, height } = jpeg.decode(readFileSync(photo), { formatAsRGBA: false });
  const images = new ort.Tensor("uint8", data, [1, height, width, 3]);
  const start = performance.now();
  const { output, exit, score } = await session.run({ images });
  const ms = performance.now() - start;
  const answer = output.data.indexOf(Math.max(...output.data));
  const [where, sure] = [Number(exit.data[0]), score.data[0]];
  console.log(JSON.stringify({ photo, label: classes?.[answer] ?? answer, exit: where, score: sure, ms }));
}
