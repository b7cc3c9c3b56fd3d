"""Predict one video from Python and print its summary, its highest arousal, its table and its plot.

Run: python docs/examples/one_video.py work/train/default talk.mp4
"""

# %% Load a model and predict a video
import sys

import affect

run, video = sys.argv[1:3]
model = affect.load(run)
trace = model.predict(video)

# %% Use the values of each frame
seen = trace.face >= 0.5  # face: probability of a face
print(f"{len(trace.time)} frames, a face in {seen.mean():.0%} of them")
print(f"mean valence {trace.valence[seen].mean():+.2f}, mean arousal {trace.arousal[seen].mean():+.2f}")

# %% Find the frame with the highest arousal
highest = trace.arousal.argmax()
print(f"highest arousal at {trace.time[highest]:.2f} s")

# %% Get a table
table = trace.to_dataframe()
print(table.describe())

# %% Draw a plot
figure = trace.plot()
